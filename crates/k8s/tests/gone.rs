//! A server that has forgotten what changed: everything is listed anew, after a while.

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

/// Watches that are told of; the test expects three.
const WATCHES_MAX: usize = 16;

/// What each watch is answered with, one after the other; the last one goes on.
const SCRIPT: [&[&str]; 3] = [
    // Two Services, then the server has forgotten.
    &[
        r#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"shop","name":"web","resourceVersion":"7"},"spec":{}}}"#,
        r#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"shop","name":"old","resourceVersion":"7"},"spec":{}}}"#,
        DONE,
        r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version","reason":"Expired","code":410}}"#,
    ],
    // It breaks before the list is whole.
    &[
        r#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"shop","name":"web","resourceVersion":"9"},"spec":{}}}"#,
    ],
    &[
        r#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"shop","name":"web","resourceVersion":"9"},"spec":{}}}"#,
        DONE,
    ],
];
const DONE: &str = r#"{"type":"BOOKMARK","object":{"apiVersion":"v1","kind":"Service","metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;

/// Answers one watch after the other; each ends with its connection.
async fn serve(
    stream: TcpStream,
    script: &[&str],
    last: bool,
    asked: mpsc::Sender<String>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let _ = asked.try_send(first);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    for event in script {
        stream.write_all(event.as_bytes()).await?;
        stream.write_all(b"\n").await?;
    }
    if last {
        // Until the client goes.
        stream.read_u8().await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_forgotten_is_listed_anew_and_half_a_list_prunes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked_in, mut asked) = mpsc::channel(WATCHES_MAX);
    tokio::spawn(async move {
        for (at, script) in SCRIPT.iter().enumerate() {
            let (stream, _) = listener.accept().await.unwrap();
            let last = at + 1 == SCRIPT.len();
            let served = serve(stream, script, last, asked_in.clone()).await;
            assert!(served.is_ok() || last, "{served:?}");
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
    let wanted = [
        "init",
        "there: web",
        "there: old",
        "done", // as it was
        "init",
        "there: web", // half of it: not done, so that nothing is gone yet
        "init",
        "there: web",
        "done", // now it is known that old is gone
    ];
    let told = events.map(name).take(wanted.len()).collect::<Vec<_>>();
    let told = tokio::time::timeout(DEADLINE, told).await.unwrap();
    assert_eq!(told, wanted);
    let requests: Vec<String> = std::iter::from_fn(|| asked.try_recv().ok()).collect();
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert!(
        requests
            .iter()
            .all(|request| request.contains("sendInitialEvents"))
    );
}
