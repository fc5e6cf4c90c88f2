//! kubeadm's plugins answer for the cluster, and from the cache, without taking memory.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;

use portolan_dns::chain::{Chain, Names};
use portolan_dns::corefile::{self, Sources};
use portolan_dns::message::{Message, record};
use portolan_dns::metrics::Tally;
use portolan_dns::server::{Answer, Client, Step, Transport};
use portolan_dns::site::{Door, Site};
use portolan_dns::wire::{Name, Query, rtype};
use portolan_dns::zone::{Config, Index, Live};
use portolan_model::Protocol;
use portolan_model::names::{Change, Kind, Label, Owner, Port, Service, ServiceKind};
use tokio::net::UdpSocket;

struct Nothing;

impl Sources for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn import(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        Err("no files".to_string())
    }
}

fn cluster() -> Arc<Live> {
    let zones = ["cluster.local", "in-addr.arpa"]
        .map(|zone| Name::parse(zone).unwrap())
        .to_vec();
    let mut index = Index::new(Config {
        zones,
        ..Config::default()
    });
    let web = Service {
        owner: Owner::new("shop", "web").unwrap(),
        kind: ServiceKind::ClusterIp(vec!["172.30.0.1".parse().unwrap()]),
        ports: vec![Port {
            name: Label::new("http"),
            protocol: Protocol::Tcp,
            number: 80,
        }],
        external: Vec::new(),
        external_names: Vec::new(),
        publish_not_ready: false,
        selects: true,
    };
    let begin = Kind::ALL.into_iter().map(Change::Listing);
    let objects = [
        Change::Namespace(Label::new("shop").unwrap()),
        Change::Service(web),
    ];
    for change in begin
        .chain(objects)
        .chain(Kind::ALL.into_iter().map(Change::Listed))
    {
        index.apply(change, 1);
    }
    Arc::new(Live::new(&index))
}

fn door(other: SocketAddr) -> Door {
    let text = format!(
        ".:53 {{
    errors
    kubernetes cluster.local in-addr.arpa {{
       pods insecure
       fallthrough in-addr.arpa
       ttl 30
    }}
    prometheus :9153
    forward . {other}
    cache 30
    loop
    reload
    loadbalance
}}"
    );
    let config = corefile::parse("Corefile", &text, 53, &Nothing).unwrap();
    let zones = config.blocks[0]
        .plugins
        .kubernetes
        .as_ref()
        .unwrap()
        .zones
        .clone();
    let names = Names {
        live: cluster(),
        zones,
        external: None,
    };
    let chain = Arc::new(Chain::new(&config.blocks[0], Some(names)).unwrap());
    let tally = || Arc::new(Tally::new("dns://:53", "."));
    Door::new(Site::new(vec![(Name::root(), chain, tally())], tally()))
}

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    bytes.extend_from_slice(Name::parse(name).unwrap().as_wire());
    bytes.extend_from_slice(
        &[
            &kind.to_be_bytes()[..],
            &[0, 1],
            &[0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0],
        ]
        .concat(),
    );
    bytes
}

#[tokio::test]
async fn answers_at_once_take_no_memory() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let door = door(socket.local_addr().unwrap());
    let client = Client {
        address: "10.1.0.9:4242".parse().unwrap(),
        local: "172.30.0.10".parse().unwrap(),
        transport: Transport::Udp,
    };
    // What is in the cache has been asked for once.
    let other = query("www.example.org", rtype::A);
    let answering = async {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let mut message = Message::read(&buffer[..length]).unwrap();
            message.response = true;
            message.answers = vec![record("www.example.org. 60 A 203.0.113.2").unwrap()];
            socket
                .send_to(&message.encoded(None, 1232), from)
                .await
                .unwrap();
        }
    };
    tokio::select! {
        () = answering => {}
        answer = door.later(other.clone(), client) => assert!(answer.is_some()),
    }
    let mut out = Vec::with_capacity(4096);
    for (what, request) in [
        ("an address", query("web.shop.svc.cluster.local", rtype::A)),
        (
            "no address of that kind",
            query("web.shop.svc.cluster.local", rtype::AAAA),
        ),
        (
            "a port",
            query("_http._tcp.web.shop.svc.cluster.local", rtype::SRV),
        ),
        (
            "no such name",
            query(
                "web.shop.svc.cluster.local.shop.svc.cluster.local",
                rtype::A,
            ),
        ),
        (
            "a reverse name",
            query("1.0.30.172.in-addr.arpa", rtype::PTR),
        ),
        ("from the cache", other),
    ] {
        let query = Query::read(&request).unwrap();
        let mut answered = true;
        let taken = allocation_counter::measure(|| {
            for _ in 0..10 {
                answered &= matches!(door.at_once(&query, &client, &mut out), Step::Answered);
            }
        });
        assert!(answered, "{what}");
        assert_eq!(taken.count_total, 0, "{what}");
    }
}
