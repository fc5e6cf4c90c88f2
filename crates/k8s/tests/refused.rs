//! A server that knows nothing of lists in watches.

use std::time::Duration;

use futures::StreamExt;
use kube::{Api, Client, Config};
use portolan_k8s::watch::{Event, Filter, watch};
use portolan_k8s::wire::Service;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Longer than any of this takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// More requests than these are not looked at: the test expects three.
const REQUESTS_MAX: usize = 16;

const REFUSAL: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled","reason":"Invalid","code":422}"#;
const LIST: &str = r#"{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"shop","name":"web"},"spec":{}}]}"#;
const ADDED: &str = r#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"shop","name":"db","resourceVersion":"8"},"spec":{}}}"#;

/// Answers requests on one connection, and tells which ones.
async fn serve(stream: TcpStream, asked: mpsc::Sender<String>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 2 {
            line.clear();
        }
        let (status, body) = match (
            first.contains("sendInitialEvents"),
            first.contains("watch="),
        ) {
            (true, _) => ("422 Unprocessable Entity", REFUSAL),
            (false, false) => ("200 OK", LIST),
            (false, true) => ("200 OK", ADDED),
        };
        let _ = asked.try_send(first.clone());
        let (length, rest) = match status.starts_with("200") && first.contains("watch=") {
            // A watch goes on.
            true => (
                "Transfer-Encoding: chunked".to_owned(),
                format!("{:x}\r\n{body}\n\r\n", body.len() + 1),
            ),
            false => (format!("Content-Length: {}", body.len()), body.to_owned()),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{length}\r\n\r\n{rest}"
        );
        stream.write_all(answer.as_bytes()).await?;
        if length.starts_with("Transfer") {
            // Until the client goes.
            stream.read_u8().await?;
        }
    }
}

#[tokio::test]
async fn a_server_that_refuses_is_asked_for_lists() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked_in, mut asked) = mpsc::channel(REQUESTS_MAX);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, asked_in.clone()));
        }
    });
    let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
    let events = watch(Api::<Service>::all(client), Filter::default());
    let name = |event: Event<Service>| match event {
        Event::Init => "init".to_owned(),
        Event::InitApply(service) => format!("there: {}", service.metadata.name.unwrap()),
        Event::InitDone => "done".to_owned(),
        Event::Apply(service) => format!("new: {}", service.metadata.name.unwrap()),
        Event::Delete(_) => "deleted".to_owned(),
    };
    let first = events.map(name).take(4).collect::<Vec<_>>();
    let first = tokio::time::timeout(DEADLINE, first).await.unwrap();
    assert_eq!(first, ["init", "there: web", "done", "new: db"]);
    let requests: Vec<String> = std::iter::from_fn(|| asked.try_recv().ok()).collect();
    let refused = requests.iter().filter(|r| r.contains("sendInitialEvents"));
    assert_eq!(refused.count(), 1, "it is asked once: {requests:?}");
}
