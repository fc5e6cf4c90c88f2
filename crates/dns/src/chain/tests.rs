//! Blocks of a Corefile answer queries: plugins together, against servers that are played in this process.

use std::net::SocketAddr;
use std::sync::Arc;

use portolan_model::Protocol;
use portolan_model::names::{
    Change, Kind, Label, ObjectName, Owner, Pod, Port, Service, ServiceKind,
};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::*;
use crate::corefile::{self, Sources};
use crate::message::record;
use crate::metrics::{Tally, write_tallies};
use crate::server::{Answer, Step};
use crate::site::{Door, Site};
use crate::wire::{rcode, rtype};
use crate::zone::{Config, Index, PodNames};

mod plugins;

struct Nothing;

impl Sources for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn import(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        Err("no files".to_string())
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn service(name: &str, kind: ServiceKind) -> Change {
    Change::Service(Service {
        owner: Owner::new("shop", name).unwrap(),
        kind,
        ports: vec![Port {
            name: Label::new("http"),
            protocol: Protocol::Tcp,
            number: 80,
        }],
        external: vec!["198.51.100.7".parse().unwrap()],
        external_names: Vec::new(),
        publish_not_ready: false,
        selects: true,
    })
}

/// A cluster with a namespace, three Services and a pod.
fn cluster() -> Arc<Live> {
    let zones = ["cluster.local", "172.in-addr.arpa"].map(name).to_vec();
    let config = Config {
        zones,
        pods: PodNames::Verified,
        ttl: 30,
        ..Config::default()
    };
    let mut index = Index::new(config);
    let outside = portolan_model::names::HostName::new("www.example.org");
    let changes = [
        Change::Namespace(Label::new("shop").unwrap()),
        service(
            "web",
            ServiceKind::ClusterIp(vec!["172.30.0.1".parse().unwrap()]),
        ),
        service("out", ServiceKind::ExternalName(outside)),
        Change::Pod(Pod {
            object: ObjectName::new("shop", "client"),
            addresses: vec!["10.1.0.9".parse().unwrap()],
            live: true,
            host_network: false,
        }),
    ];
    let begin = Kind::ALL.into_iter().map(Change::Listing);
    let end = Kind::ALL.into_iter().map(Change::Listed);
    for change in begin.chain(changes).chain(end) {
        index.apply(change, 1);
    }
    Arc::new(Live::new(&index))
}

/// Another server: it knows www.example.org, and says of all else below example.org that it does not exist.
struct Other {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

async fn other() -> Other {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut message = Message::read(&buffer[..length]).unwrap();
            message.response = true;
            let soa = "example.org. 60 SOA ns.example.org. host.example.org. 1 2 3 4 60";
            let text = text_of(message.question.name.as_wire());
            match (text.as_str(), message.question.rtype) {
                ("www.example.org.", rtype::A) => {
                    message.answers = vec![record("www.example.org. 60 A 203.0.113.2").unwrap()];
                    message.additionals = vec![record("ns.example.org. 60 A 203.0.113.1").unwrap()];
                }
                ("www.example.org.", _) => message.authorities = vec![record(soa).unwrap()],
                ("alias.example.org.", _) => {
                    message.answers =
                        vec![record("alias.example.org. 60 CNAME cdn.example.net.").unwrap()];
                }
                ("ill.example.org.", _) => message.rcode = rcode::SERVFAIL,
                _ => {
                    message.rcode = rcode::NXDOMAIN;
                    message.authorities = vec![record(soa).unwrap()];
                }
            }
            socket
                .send_to(&message.encoded(None, 1232), from)
                .await
                .unwrap();
        }
    });
    Other {
        address,
        asked,
        _task: task,
    }
}

impl Other {
    fn asked(&self) -> usize {
        self.asked.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// The blocks of a Corefile behind one door; `OTHER` is the address of the other server.
struct World {
    door: Door,
    tally: Arc<Tally>,
    other: Other,
}

impl World {
    async fn new(text: &str) -> World {
        let other = other().await;
        let text = text.replace("OTHER", &other.address.to_string());
        let config = corefile::parse("Corefile", &text, 53, &Nothing).unwrap();
        let tally = Arc::new(Tally::new("dns://:53", "."));
        let live = cluster();
        let zones = config.blocks.iter().map(|block| {
            let external = block.plugins.external.as_ref().map(|external| {
                let zones = external
                    .zones
                    .iter()
                    .map(|zone| name(zone.as_str()))
                    .collect();
                let apex = Label::new(&external.apex).unwrap();
                Arc::new(External::new(
                    zones,
                    apex,
                    external.headless,
                    external.ttl,
                    Vec::new(),
                ))
            });
            let names = block.plugins.kubernetes.as_ref().map(|kubernetes| Names {
                live: Arc::clone(&live),
                zones: kubernetes.zones.clone(),
                external,
            });
            let chain = Arc::new(Chain::new(block, names).unwrap());
            (name(block.keys[0].zone.as_str()), chain, Arc::clone(&tally))
        });
        let door = Door::new(Site::new(
            zones.collect(),
            Arc::new(Tally::new("dns://:53", "dropped")),
        ));
        World { door, tally, other }
    }

    /// Asks as a client at an address; says whether it took the long way, too.
    async fn ask_from(&self, from: &str, text: &str, rtype: u16) -> Option<(Message, bool)> {
        let mut request = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        request.extend_from_slice(name(text).as_wire());
        request.extend_from_slice(&[&rtype.to_be_bytes()[..], &[0, 1]].concat());
        let client = Client {
            address: format!("{from}:4242").parse().unwrap(),
            local: "172.30.0.10".parse().unwrap(),
            transport: Transport::Udp,
        };
        let query = Query::read(&request).unwrap();
        let mut out = Vec::new();
        let (bytes, long) = match self.door.at_once(&query, &client, &mut out) {
            Step::Answered => (out, false),
            Step::Later => (self.door.later(request.clone(), client).await?, true),
            Step::Drop | Step::Transfer(_) => return None,
        };
        let message = Message::read(&bytes).unwrap();
        assert_eq!(
            (message.id, message.question.name.to_string()),
            (0x0102, format!("{text}."))
        );
        Some((message, long))
    }

    async fn ask(&self, text: &str, rtype: u16) -> Message {
        self.ask_from("10.1.0.9", text, rtype).await.unwrap().0
    }
}

/// Answers as text: `NAME TYPE DATA`, addresses and names only.
fn answers(message: &Message) -> Vec<String> {
    let one = |record: &crate::message::Record| {
        let data = crate::message::address(record).map(|address| address.to_string());
        let data = data.or_else(|| crate::message::name_in(record).map(|name| name.to_string()));
        format!(
            "{} {} {}",
            record.name,
            crate::corefile::types::type_name(record.rtype),
            data.unwrap_or_default()
        )
    };
    message.answers.iter().map(one).collect()
}

const KUBEADM: &str = ".:53 {
    errors
    kubernetes cluster.local 172.in-addr.arpa {
       pods verified
       fallthrough 172.in-addr.arpa
       ttl 30
    }
    forward . OTHER
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    loadbalance
}";

#[tokio::test]
async fn the_cluster_is_answered_at_once_and_others_are_asked() {
    let world = World::new(KUBEADM).await;
    for (text, kind, code) in [
        ("web.shop.svc.cluster.local", rtype::A, 0),
        ("web.shop.svc.cluster.local", rtype::AAAA, 0),
        ("no.shop.svc.cluster.local", rtype::A, 3),
        ("1.0.30.172.in-addr.arpa", rtype::PTR, 0),
    ] {
        let (message, long) = world.ask_from("10.1.0.9", text, kind).await.unwrap();
        assert_eq!((message.rcode, long), (code, false), "{text}");
        assert!(message.authoritative);
    }
    let (message, long) = world
        .ask_from("10.1.0.9", "www.example.org", rtype::A)
        .await
        .unwrap();
    assert_eq!(
        (answers(&message), long),
        (vec!["www.example.org. A 203.0.113.2".to_string()], true)
    );
    let (message, long) = world
        .ask_from("10.1.0.9", "www.example.org", rtype::A)
        .await
        .unwrap();
    assert_eq!(
        (message.answers.len(), long),
        (1, false),
        "from the cache, at once"
    );
    // A reverse name that is not the cluster's goes on.
    let before = world.other.asked();
    assert_eq!(
        world.ask("9.9.30.172.in-addr.arpa", rtype::PTR).await.rcode,
        3
    );
    assert_eq!(world.other.asked(), before + 1);
    let mut text = String::new();
    write_tallies([&*world.tally].into_iter(), &mut text);
    for line in [
        "coredns_dns_requests_total{server=\"dns://:53\",zone=\".\",view=\"\",proto=\"udp\",family=\"1\",type=\"PTR\"} 2",
        "coredns_dns_responses_total{server=\"dns://:53\",zone=\".\",view=\"\",rcode=\"NOERROR\",plugin=\"cache\"} 1",
        "coredns_dns_responses_total{server=\"dns://:53\",zone=\".\",view=\"\",rcode=\"NXDOMAIN\",plugin=\"kubernetes\"} 1",
        "coredns_dns_request_duration_seconds_count{server=\"dns://:53\",zone=\".\",view=\"\"} 7",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn names_of_the_cluster_need_no_other_server() {
    let world = World::new(&KUBEADM.replace("OTHER", "127.0.0.1:1")).await;
    assert_eq!(
        world
            .ask("web.shop.svc.cluster.local", rtype::A)
            .await
            .rcode,
        0
    );
    assert_eq!(
        world
            .ask(
                "web.shop.svc.cluster.local.shop.svc.cluster.local",
                rtype::A
            )
            .await
            .rcode,
        3
    );
    let message = world.ask("out.shop.svc.cluster.local", rtype::A).await;
    assert_eq!(message.rcode, 0, "the failure of others is not ours");
    assert_eq!(
        answers(&message),
        ["out.shop.svc.cluster.local. CNAME www.example.org."]
    );
    let message = world.ask("www.example.org", rtype::A).await;
    assert_eq!(message.rcode, rcode::SERVFAIL);
}

#[tokio::test]
async fn external_names_are_resolved_outside() {
    let world = World::new(KUBEADM).await;
    let message = world.ask("out.shop.svc.cluster.local", rtype::A).await;
    assert_eq!(
        answers(&message),
        [
            "out.shop.svc.cluster.local. CNAME www.example.org.",
            "www.example.org. A 203.0.113.2"
        ]
    );
    assert!(message.authoritative);
}

#[tokio::test]
async fn the_longest_zone_answers() {
    let world = World::new("example.org {\n hosts /dev/null {\n 203.0.113.9 x.example.org\n }\n}\nexample.net {\n forward . OTHER\n}").await;
    assert_eq!(
        answers(&world.ask("x.example.org", rtype::A).await),
        ["x.example.org. A 203.0.113.9"]
    );
    assert_eq!(world.ask("y.example.org", rtype::A).await.rcode, 3);
    assert_eq!(world.ask("a.example.net", rtype::A).await.rcode, 3);
    assert_eq!(
        world.ask("a.example.com", rtype::A).await.rcode,
        rcode::REFUSED,
        "no block has it"
    );
}

#[tokio::test]
async fn search_paths_are_tried_here() {
    let text = KUBEADM.replace("loop", "autopath cluster.local @kubernetes");
    let world = World::new(&text).await;
    let long = "www.example.org.shop.svc.cluster.local";
    let a = world.ask(long, rtype::A).await;
    assert_eq!(
        answers(&a),
        [
            format!("{long}. CNAME www.example.org."),
            "www.example.org. A 203.0.113.2".to_string()
        ]
    );
    let aaaa = world.ask(long, rtype::AAAA).await;
    assert_eq!(
        (aaaa.rcode, aaaa.answers.len()),
        (0, 0),
        "A and AAAA agree that the name exists"
    );
    let web = world.ask("web.shop.svc.cluster.local", rtype::A).await;
    assert_eq!(answers(&web), ["web.shop.svc.cluster.local. A 172.30.0.1"]);
    assert_eq!(
        world
            .ask("no.example.org.shop.svc.cluster.local", rtype::A)
            .await
            .rcode,
        3
    );
    let stranger = world.ask_from("10.9.9.9", long, rtype::A).await.unwrap().0;
    assert_eq!(stranger.rcode, 3, "nobody's address has no search path");
}

#[tokio::test]
async fn services_are_seen_from_outside() {
    let text = KUBEADM
        .replace("loop", "k8s_external example.net")
        .replace("pods verified", "pods verified\n ttl 30");
    let world = World::new(&text.replace("ttl 30\n       fallthrough", "fallthrough")).await;
    let message = world.ask("web.shop.example.net", rtype::A).await;
    assert_eq!(answers(&message), ["web.shop.example.net. A 198.51.100.7"]);
}

#[tokio::test]
async fn zones_are_for_those_whom_the_file_names() {
    let text = KUBEADM.replace("loop", "transfer cluster.local {\n to 10.1.0.9\n }");
    let world = World::new(&text).await;
    let mut request = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    request.extend_from_slice(name("cluster.local").as_wire());
    request.extend_from_slice(&[0, 252, 0, 1]);
    let query = Query::read(&request).unwrap();
    let ask = |from: &str| {
        let address = format!("{from}:4242").parse().unwrap();
        let local = "172.30.0.10".parse().unwrap();
        let client = Client {
            address,
            local,
            transport: Transport::Tcp,
        };
        let mut out = Vec::new();
        match world.door.at_once(&query, &client, &mut out) {
            Step::Transfer(messages) => messages
                .map(|bytes| Message::read(&bytes).unwrap().answers.len())
                .sum(),
            _ => usize::from(Message::read(&out).unwrap().rcode == rcode::REFUSED) * 1_000_000,
        }
    };
    assert!((3..1_000).contains(&ask("10.1.0.9")));
    assert_eq!(ask("10.1.0.8"), 1_000_000, "REFUSED");
}

#[tokio::test]
async fn answers_are_limited_over_datagrams_only() {
    let rrl = "rrl {\n responses-per-second 2\n slip-ratio 2\n }";
    let world = World::new(&KUBEADM.replace("loop", rrl)).await;
    let mut request = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    request.extend_from_slice(name("web.shop.svc.cluster.local").as_wire());
    request.extend_from_slice(&[0, 1, 0, 1]);
    let query = Query::read(&request).unwrap();
    let ask = |transport| {
        let client = Client {
            address: "10.1.0.9:4242".parse().unwrap(),
            local: "172.30.0.10".parse().unwrap(),
            transport,
        };
        let mut out = Vec::new();
        match world.door.at_once(&query, &client, &mut out) {
            Step::Answered => {
                let message = Message::read(&out).unwrap();
                (message.answers.len(), message.truncated)
            }
            _ => (0, false),
        }
    };
    let over_udp: Vec<_> = (0..4).map(|_| ask(Transport::Udp)).collect();
    assert_eq!(over_udp, [(1, false), (1, false), (0, true), (0, false)]);
    assert!((0..10).all(|_| ask(Transport::Tcp) == (1, false)));
}

#[tokio::test]
async fn aliases_that_lead_in_circles_end() {
    let text = ". {\n template IN A . {\n answer \"{{ .Name }} CNAME x.{{ .Name }}\"\n }\n}";
    let world = World::new(text).await;
    let message = world.ask("a", rtype::A).await;
    assert_eq!(message.answers.len(), usize::from(DEPTH_MAX) + 1);
}

#[tokio::test]
async fn queries_of_ours_that_come_back_are_known() {
    let world = World::new(KUBEADM).await;
    let chain = world.door.site().chains().next().cloned().unwrap();
    let server = Arc::clone(&chain.forwards[0].servers()[0]);
    assert_eq!(
        world
            .ask(server.token().trim_end_matches('.'), rtype::HINFO)
            .await
            .rcode,
        rcode::REFUSED
    );
    assert!(server.is_looping());
    assert_eq!(
        world.ask("www.example.org", rtype::A).await.rcode,
        rcode::SERVFAIL
    );
    assert_eq!(
        world
            .ask("web.shop.svc.cluster.local", rtype::A)
            .await
            .rcode,
        0,
        "the cluster goes on"
    );
}

#[tokio::test]
async fn a_new_site_takes_over() {
    let world = World::new(". {\n hosts /dev/null {\n 203.0.113.9 x\n }\n}").await;
    assert_eq!(world.ask("x", rtype::A).await.answers.len(), 1);
    let other = World::new(". {\n hosts /dev/null {\n 203.0.113.9 y\n }\n}").await;
    let chain = other.door.site().chains().next().cloned().unwrap();
    world.door.swap(Site::new(
        vec![(name("."), chain, Arc::clone(&world.tally))],
        Arc::clone(&world.tally),
    ));
    assert_eq!(world.ask("x", rtype::A).await.rcode, 3);
    assert_eq!(world.ask("y", rtype::A).await.answers.len(), 1);
}
