//! TCP connections that a program has made, ended because their endpoint is gone or does not answer.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use portolan_kernel::isolated;
use portolan_model::reset::{Connection, Fate, Stage};
use portolan_model::{Endpoint, Listener, Protocol, ServicePort};

use crate::bed::{Bed, at};

/// R-RESET-1: exactly those of which the model says so, wherever they are.
#[test]
fn a_connection_whose_endpoint_is_gone_is_reset() {
    isolated!(a_connection_whose_endpoint_is_gone_is_reset, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(bed.web());
        bed.stand();
        let vip = at("172.30.0.1:80");
        bed.quiet();
        let mut lost = bed.stream(vip);
        // To the endpoint itself, which is nobody's business.
        let mut direct = bed.stream(at("10.1.1.2:8080"));
        let notes = bed.notes();
        let none = notes.reset(|_| Fate::Stays).unwrap();
        let here = lost.local_addr().unwrap();
        let fate = |connection: &Connection| {
            assert_eq!(connection.flow.destination, vip);
            match connection.stage {
                Stage::Open => Fate::IsReset,
                _ => Fate::Stays,
            }
        };
        let ended = notes.reset(fate).unwrap();
        assert_eq!((none, ended), (0, 1), "{here}");
        let told = lost.read(&mut [0; 1]).unwrap_err().kind();
        assert_eq!(told, ErrorKind::ConnectionAborted);
        direct.set_nonblocking(true).unwrap();
        let waits = direct.read(&mut [0; 1]).unwrap_err().kind();
        assert_eq!(waits, ErrorKind::WouldBlock);
    });
}

/// R-HEALTH-9: a connection cannot be led elsewhere, but its client is told at once.
#[test]
fn who_waits_for_an_endpoint_that_does_not_answer_is_told() {
    isolated!(who_waits_for_an_endpoint_that_does_not_answer_is_told, {
        let Some(mut bed) = Bed::new() else { return };
        let silent = at("10.9.9.9:8080");
        bed.set(ServicePort {
            endpoints: [Endpoint::ready(silent)].into(),
            ..bed.web()
        });
        bed.stand();
        bed.swallow(silent.ip());
        let waiting = bed.opening(at("172.30.0.1:80"));
        let listener = |address| Listener {
            protocol: Protocol::Tcp,
            address,
        };
        let notes = bed.notes();
        let others = [listener(at("10.9.9.9:8081"))].into();
        assert_eq!(notes.leave(&others).unwrap(), 0);
        assert_eq!(notes.leave(&[listener(silent)].into()).unwrap(), 1);
        let deadline = Instant::now() + Duration::from_secs(5);
        let told = loop {
            if let Some(error) = waiting.take_error().unwrap() {
                break error.kind();
            }
            assert!(Instant::now() < deadline, "it is never told");
            std::thread::yield_now();
        };
        assert_eq!(told, ErrorKind::ConnectionAborted);
    });
}
