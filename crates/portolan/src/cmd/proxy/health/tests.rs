//! What is said at which path.

use http_body_util::BodyExt;
use portolan_model::sync::Outcome;
use portolan_model::{NodeFacts, Snapshot};
use portolan_reflect::Reflection;
use serde_json::Value;

use super::*;

/// A proxy that is asked to program something, on a node that stays or goes.
fn asked(patience: Duration, node_eligible: bool) -> Telemetry {
    let telemetry = Telemetry::new(patience);
    telemetry.wanted(reflection(node_eligible));
    telemetry
}

fn reflection(node_eligible: bool) -> Reflection {
    Reflection {
        snapshot: Arc::new(Snapshot::new(NodeFacts::default())),
        problems: Default::default(),
        triggered: std::collections::BTreeMap::new(),
        received: None,
        node_eligible,
    }
}

fn told(path: &str, whom: For, telemetry: &Telemetry) -> (u16, String) {
    let response = answer(path, whom, telemetry);
    let status = response.status().as_u16();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let body = runtime.unwrap().block_on(response.into_body().collect());
    let bytes = body.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

/// R-CHECK-4.
#[test]
fn health_is_of_the_proxy_and_for_load_balancers_of_the_node_too() {
    const LONG: Duration = Duration::from_secs(3600);
    for (telemetry, healthz, livez, eligible) in [
        (Telemetry::new(LONG), 200, 200, true),
        (asked(LONG, true), 200, 200, true),
        (asked(LONG, false), 503, 200, false),
        (asked(Duration::ZERO, true), 503, 503, true),
    ] {
        let (status, body) = told("/healthz", For::LoadBalancers, &telemetry);
        assert_eq!(status, healthz, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["nodeEligible"], eligible);
        assert_eq!(body["healthy"], livez == 200);
        assert_eq!(body.get("status"), None, "nothing has been programmed yet");
        let recent = body["lastUpdated"] == body["currentTime"];
        assert_eq!(recent, healthz == 200, "{body}");
        let (status, body) = told("/livez", For::LoadBalancers, &telemetry);
        assert_eq!(status, livez, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body.get("nodeEligible"), None);
        assert!(body["currentTime"].as_str().unwrap().ends_with('Z'));
        let metrics = telemetry.text();
        for (name, code) in [("healthz", healthz), ("livez", livez)] {
            let line = format!("kubeproxy_proxy_{name}_total{{code=\"{code}\"}} 1\n");
            assert!(metrics.contains(&line), "{metrics}");
        }
    }
}

#[test]
fn what_has_been_programmed_is_told_for_each_family() {
    let telemetry = asked(Duration::ZERO, true);
    let outcome = Outcome {
        stands: true,
        ..Outcome::default()
    };
    telemetry.stepped(&outcome, Duration::ZERO);
    let body = || -> Value {
        let (_, body) = told("/livez", For::LoadBalancers, &telemetry);
        serde_json::from_str(&body).unwrap()
    };
    let (good, healthy) = (body(), json!(true));
    assert_eq!(good["status"]["IPv4"]["healthy"], healthy);
    assert_eq!(good["status"]["IPv6"], good["status"]["IPv4"]);
    assert_eq!(good["lastUpdated"], good["currentTime"]);
    let late = telemetry.health().updated;
    telemetry.wanted(reflection(true));
    let bad = body();
    assert_eq!(bad["status"]["IPv6"]["healthy"], json!(false));
    assert_eq!(bad["lastUpdated"], bad["status"]["IPv4"]["lastUpdated"]);
    assert_eq!(telemetry.health().updated, late);
}

#[test]
fn load_balancers_learn_nothing_else() {
    let telemetry = Telemetry::new(Duration::ZERO);
    let pages = ["/configz", "/statusz", "/flagz"];
    for path in ["/metrics", "/proxyMode", "/counters", "/"]
        .into_iter()
        .chain(pages)
    {
        assert_eq!(told(path, For::LoadBalancers, &telemetry).0, 404, "{path}");
    }
    for path in ["/metrics", "/proxyMode", "/healthz", "/livez"]
        .into_iter()
        .chain(pages)
    {
        assert_eq!(told(path, For::Operators, &telemetry).0, 200, "{path}");
    }
    let (status, words) = told("/counters", For::Operators, &telemetry);
    assert_eq!(status, 404);
    assert!(words.contains("--count-connections"), "{words}");
    assert_eq!(told("/nothing", For::Operators, &telemetry).0, 404);
}

#[tokio::test]
async fn an_address_that_is_taken_is_tried_again_or_ends_the_proxy() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let telemetry = Arc::new(Telemetry::new(Duration::from_secs(3600)));
    let serve = |hard_fail| {
        let telemetry = Arc::clone(&telemetry);
        let retry = Duration::from_millis(1);
        serve_at(address, For::LoadBalancers, telemetry, hard_fail, retry)
    };
    let words = serve(true).await.unwrap_err().to_string();
    assert!(words.contains("--bind-address-hard-fail"), "{words}");
    let mut task = JoinSet::new();
    task.spawn(serve(false));
    // Whoever is first in the queue of the old listener is not answered; the new one answers.
    drop(taken);
    let asked = async {
        loop {
            if let Ok(mut stream) = tokio::net::TcpStream::connect(address).await {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let request = b"GET /livez HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n";
                stream.write_all(request).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), asked).await;
    assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
}
