//! XDP carries what can be carried, and everything else goes as it does without.

use portolan_kernel::isolated;
use portolan_kernel::offload::Offload;
use portolan_model::{Family, Protocol};

use crate::bed::{Bed, FAR, NEAR, at, echo, echo_datagram, greeting, node_port, switch};
use crate::{MANY_BYTES, client, conntrack_entries, make_older};

/// Packets of a packet's size at most, there and back.
const MANY_PACKETS: u64 = 2 * MANY_BYTES as u64 / 1400;

#[test]
fn segments_are_carried_before_the_kernel_sees_them() {
    isolated!(segments_are_carried_before_the_kernel_sees_them, {
        let Some(mut bed) = Bed::fast() else { return };
        bed.stand(Protocol::Tcp, &[&FAR]);
        for family in Family::ALL {
            let before = bed.outcomes().carried_fast;
            let mut stream = bed.connect(node_port(family)).unwrap();
            let told = greeting(&mut stream);
            assert_eq!(told.who, at(FAR[family as usize]));
            assert_eq!(told.saw, node_port(family).ip(), "an address of the node");
            // Links are narrow on both sides: routers complain, and are understood.
            echo(&mut stream, MANY_BYTES);
            let outcomes = bed.outcomes();
            assert_eq!(outcomes.to_send, family as u64 + 1);
            let carried = outcomes.carried_fast - before;
            assert!(carried > MANY_PACKETS, "{family:?}: {outcomes:?}");
        }
        assert_eq!(conntrack_entries(&bed), 0);
    });
}

#[test]
fn datagrams_are_carried_and_their_pieces_go_through_tc() {
    isolated!(datagrams_are_carried_and_their_pieces_go_through_tc, {
        let Some(mut bed) = Bed::fast() else { return };
        bed.stand(Protocol::Udp, &[&FAR]);
        for family in Family::ALL {
            let socket = bed.datagrams(node_port(family));
            // The first packet begins the flow, at tc, and its answer may have to find out who the next hop is.
            let mut carried = bed.outcomes().carried_fast;
            for (count, fast) in [(10, 0), (10, 2), (1000, 2), (4000, 0), (9000, 0), (10, 2)] {
                let told = echo_datagram(&socket, count).unwrap();
                assert_eq!(told.who, at(FAR[family as usize]), "{count} bytes");
                assert_eq!(told.saw, node_port(family).ip());
                let now = bed.outcomes().carried_fast;
                assert!(
                    now - carried >= fast,
                    "{family:?} {count}: {}",
                    now - carried
                );
                carried = now;
            }
        }
    });
}

/// What goes through the stack, and what is nobody's, is as it was.
#[test]
fn other_packets_go_to_the_kernel() {
    isolated!(other_packets_go_to_the_kernel, {
        let Some(mut bed) = Bed::fast() else { return };
        bed.stand(Protocol::Tcp, &[&NEAR]);
        for family in Family::ALL {
            let mut stream = bed.connect(node_port(family)).unwrap();
            let told = greeting(&mut stream);
            assert_eq!(told.who, at(NEAR[family as usize]));
            assert_ne!(told.saw, client(family));
            echo(&mut stream, MANY_BYTES);
            // Of no Service: the pod itself.
            let mut stream = bed.connect(at(FAR[family as usize])).unwrap();
            assert_eq!(greeting(&mut stream).saw, client(family));
            echo(&mut stream, 100_000);
        }
        let outcomes = bed.outcomes();
        assert_eq!((outcomes.to_masquerade, outcomes.carried_fast), (2, 0));
    });
}

/// A virtual device leaves checksums to whoever comes after it, and says so beside the packet: tc hears that, XDP does
/// not.
#[test]
fn unfinished_checksums_are_left_to_tc() {
    isolated!(unfinished_checksums_are_left_to_tc, {
        let Some(mut bed) = Bed::fast() else { return };
        for host in [&bed.client, &bed.far] {
            switch(host, "uplink", Offload::TxChecksum, true);
        }
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            bed.stand(protocol, &[&FAR]);
            for family in Family::ALL {
                if protocol == Protocol::Udp {
                    let socket = bed.datagrams(node_port(family));
                    for count in [10, 10, 1000] {
                        echo_datagram(&socket, count).unwrap();
                    }
                } else {
                    let mut stream = bed.connect(node_port(family)).unwrap();
                    greeting(&mut stream);
                    echo(&mut stream, MANY_BYTES);
                }
            }
        }
        let outcomes = bed.outcomes();
        assert_eq!(outcomes.to_send, 4);
        // By chance one of 65,536 looks as if it were finished and is not, or the other way round; either arrives.
        assert!(outcomes.carried_fast < MANY_PACKETS / 10, "{outcomes:?}");
    });
}

/// Where a device cannot take frames, everything goes through tc: nothing is lost.
#[test]
fn without_frames_tc_does_it_all() {
    isolated!(without_frames_tc_does_it_all, {
        let Some(mut bed) = Bed::fast() else { return };
        let links = |bed: &Bed| {
            let shown = bed.run_on_node("ip", &["link"]);
            shown.matches(" xdp ").count()
        };
        assert_eq!(links(&bed), 2, "{}", bed.run_on_node("ip", &["link"]));
        bed.target = None;
        switch(&bed.others[1], "uplink", Offload::Gro, false);
        // The agent looks when devices change, as when it starts.
        bed.open();
        assert_eq!(links(&bed), 1, "{}", bed.run_on_node("ip", &["link"]));
        bed.stand(Protocol::Tcp, &[&FAR]);
        for family in Family::ALL {
            let mut stream = bed.connect(node_port(family)).unwrap();
            greeting(&mut stream);
            echo(&mut stream, MANY_BYTES);
        }
        assert_eq!(bed.outcomes().to_send, 2);
        // It is not wanted any more.
        bed.location.xdp = false;
        bed.open();
        assert_eq!(links(&bed), 0);
        greeting(&mut bed.connect(node_port(Family::V4)).unwrap());
    });
}

/// A device has room for one program of XDP: a newer one takes the place of the older one.
#[test]
fn a_newer_program_takes_the_place_of_the_older_one() {
    isolated!(a_newer_program_takes_the_place_of_the_older_one, {
        let Some(mut bed) = Bed::fast() else { return };
        bed.stand(Protocol::Tcp, &[&FAR]);
        let mut stream = bed.connect(node_port(Family::V4)).unwrap();
        greeting(&mut stream);
        for _ in 0..5 {
            bed.target = None;
            make_older(&bed);
            bed.open();
            echo(&mut stream, 100_000);
            assert!(bed.outcomes().carried_fast > 0, "{:?}", bed.outcomes());
        }
    });
}

/// The flows are in tables that both know: an agent with XDP takes over what one without began, and back.
#[test]
fn flows_go_on_when_xdp_comes_and_goes() {
    isolated!(flows_go_on_when_xdp_comes_and_goes, {
        let Some(mut bed) = Bed::fast() else { return };
        bed.stand(Protocol::Tcp, &[&FAR]);
        let mut streams: Vec<_> = Family::ALL
            .map(|family| bed.connect(node_port(family)).unwrap())
            .into();
        for stream in &mut streams {
            greeting(stream);
        }
        for xdp in [false, true, false] {
            bed.location.xdp = xdp;
            bed.open();
            let before = bed.outcomes().carried_fast;
            streams.iter_mut().for_each(|stream| echo(stream, 100_000));
            let carried = bed.outcomes().carried_fast - before;
            assert_eq!(carried > 0, xdp, "{carried}");
        }
    });
}
