//! A Deployment's whole life against the real server and its controllers, driven by kubectl: at every moment of every
//! update as many pods are available, and as few exist, as its strategy promises.

use crate::agent::Agent;
use crate::observer::Observer;
use crate::server::{Server, until};

/// Pods asked for in the first deploy, one for each node.
const NODES: usize = 3;

fn manifest(replicas: usize) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  strategy: {{rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}}}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: c, image: 'web:1'}}]}}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_lives_through_everything() {
    let mut server = Server::start();
    let client = server.client().await;
    let _agent = Agent::start(client.clone(), NODES).await;
    let observer = Observer::start(client.clone()).await;

    server.apply(&manifest(NODES));
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    until("three pods are spread over three nodes", || {
        observer.nodes() == NODES
    })
    .await;

    server.kubectl(&["scale", "deployment/web", "--replicas=5"]);
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    until("five pods", || observer.images() == ["web:1"; 5]).await;

    observer.demand(5, 6);
    server.kubectl(&["set", "image", "deployment/web", "c=web:2"]);
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    until("only new pods", || observer.images() == ["web:2"; 5]).await;

    server.kubectl(&["set", "image", "deployment/web", "c=web:3"]);
    until("the update has begun", || {
        observer.images().contains(&"web:3".to_string())
    })
    .await;
    server.restart();
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    until("only new pods", || observer.images() == ["web:3"; 5]).await;

    assert_eq!(revisions(&server), ["1", "2", "3"]);
    server.kubectl(&["rollout", "undo", "deployment/web"]);
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    until("the pods before", || observer.images() == ["web:2"; 5]).await;
    assert_eq!(revisions(&server), ["1", "3", "4"]);

    paused(&server, &observer).await;

    let before = observer.names();
    server.kubectl(&["rollout", "restart", "deployment/web"]);
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    until("all pods are others", || {
        let now = observer.names();
        now.len() == 5 && now.iter().all(|name| !before.contains(name))
    })
    .await;
    observer.judge();

    observer.demand(0, usize::MAX);
    let events = server.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
    for said in [
        "Scaled up replica set web-",
        "Created pod: web-",
        "Deleted pod: web-",
        "Successfully assigned default/web-",
    ] {
        assert!(events.contains(said), "no event says {said:?}");
    }
    server.kubectl(&["delete", "deployment", "web", "--timeout=60s"]);
    until("no pod is left", || observer.names().is_empty()).await;
    let sets = || server.kubectl(&["get", "replicasets", "-o", "name"]);
    until("no ReplicaSet is left", || sets().is_empty()).await;
}

/// While it is paused nothing new comes; then it does.
async fn paused(server: &Server, observer: &Observer) {
    server.kubectl(&["rollout", "pause", "deployment/web"]);
    server.kubectl(&["set", "image", "deployment/web", "c=web:5"]);
    let generations = "jsonpath={.metadata.generation} {.status.observedGeneration}";
    let seen = || {
        let text = server.kubectl(&["get", "deployment", "web", "-o", generations]);
        let words: Vec<&str> = text.split(' ').collect();
        words.len() == 2 && words[0] == words[1]
    };
    until("the controller has seen the change", seen).await;
    assert_eq!(observer.images(), ["web:2"; 5]);
    server.kubectl(&["rollout", "resume", "deployment/web"]);
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    until("only new pods", || observer.images() == ["web:5"; 5]).await;
    observer.judge();
}

/// What `kubectl rollout history` lists below its two headings.
fn revisions(server: &Server) -> Vec<String> {
    let history = server.kubectl(&["rollout", "history", "deployment/web"]);
    let lines = history.lines().skip(2);
    let words = lines.filter_map(|line| line.split_whitespace().next());
    words.map(String::from).collect()
}
