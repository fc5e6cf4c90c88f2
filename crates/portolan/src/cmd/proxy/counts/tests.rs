//! From a connection to a line of /metrics.

use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use portolan_dataplane::nftables::Nftables;
use portolan_kernel::{Links, NftTarget, isolated};
use portolan_model::{Backend, Endpoint, NodeFacts, Protocol, ServicePort, Target};
use portolan_reflect::Reflection;

use super::super::metrics::Telemetry;
use super::*;

#[test]
fn a_connection_is_a_line_of_metrics() {
    isolated!(a_connection_is_a_line_of_metrics, {
        Links::here().unwrap().up("lo").unwrap();
        let endpoint = TcpListener::bind("127.0.0.2:0").unwrap();
        let address = endpoint.local_addr().unwrap();
        let mut snapshot = Snapshot::new(NodeFacts::default());
        snapshot.set(ServicePort {
            cluster_ips: vec!["127.0.0.10".parse().unwrap()],
            endpoints: [Endpoint::ready(address)].into(),
            ..ServicePort::new(
                PortKey::new("shop", "web", "http", Protocol::Tcp),
                NonZeroU16::new(80).unwrap(),
            )
        });
        let (state, _) = Nftables.compile(&snapshot);
        let mut target = NftTarget::open().unwrap();
        target.apply(&Nftables.diff(None, &state)).unwrap();
        // Somebody else has the table, and gives it up in time.
        let former = ConnectionCounts::open(16).unwrap();
        let telemetry = Telemetry::new(Duration::from_secs(30)).counting(16);
        telemetry.wanted(Reflection {
            snapshot: Arc::new(snapshot),
            problems: Default::default(),
            triggered: None,
            received: None,
            node_eligible: true,
        });
        let name = "portolan_proxy_service_connections_total";
        assert!(telemetry.text().contains("portolan_proxy_other_service"));
        TcpStream::connect("127.0.0.10:80").unwrap();
        drop(former);
        assert!(!telemetry.text().contains(&format!("{name}{{")));
        for made in 1..=3 {
            TcpStream::connect("127.0.0.10:80").unwrap();
            let line = format!(
                "{name}{{namespace=\"shop\",service=\"web\",port=\"http\",protocol=\"TCP\"}} {made}\n"
            );
            let text = telemetry.text();
            assert!(text.contains(&line), "{text}");
        }
        let told = telemetry.counters().unwrap();
        assert_eq!(told["ports"][0]["connections"], 3);
        assert_eq!(told["ports"][0]["endpoints"][address.to_string()], 3);
    });
}
