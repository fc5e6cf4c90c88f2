//! Single frames, shown to the program that stands where packets arrive (BPF_PROG_TEST_RUN): what it takes, and what it
//! must leave exactly as it is.

use std::path::{Path, PathBuf};

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use portolan_kernel::isolated;
use portolan_model::Protocol;

use crate::bed::{Bed, FAR, NEAR, NODE_PORT};

/// TCX_NEXT, TC_ACT_SHOT and TC_ACT_REDIRECT of linux/bpf.h and linux/pkt_cls.h.
const NEXT: u32 = u32::MAX;
const REDIRECT: u32 = 7;

/// Where the index of the device stands in struct __sk_buff, and how long that is.
const IFINDEX_AT: usize = 40;
const CONTEXT_LEN: usize = 192;

/// Offsets in a frame with a plain IPv4 header.
const ETHERTYPE: usize = 12;
const IP: usize = 14;
const FRAGMENT: usize = IP + 6;
const HOPS: usize = IP + 8;
const PROTOCOL: usize = IP + 9;
const DESTINATION: usize = IP + 16;
const PORTS: usize = IP + 20;
const FLAGS: usize = PORTS + 13;

const SYN: u8 = 2;
const ACK: u8 = 16;

/// The client's first packet to the NodePort, for the device with this address.
fn syn(device: [u8; 6]) -> Vec<u8> {
    let mut frame = device.to_vec();
    frame.extend([2, 0, 0, 0, 0, 1, 8, 0]);
    frame.extend([0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0]);
    frame.extend([203, 0, 113, 2, 192, 168, 0, 11]);
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(NODE_PORT.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 255, 255, 0, 0, 0, 0]);
    let sum = checksum(&frame[IP..PORTS]);
    frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The program, the device `out`, and its address.
struct Arrival {
    program: SchedClassifier,
    context: Vec<u8>,
    device: [u8; 6],
}

impl Arrival {
    fn of(bed: &Bed) -> Arrival {
        let list = |path: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        let all = list(&bed.location.pins)
            .into_iter()
            .flat_map(|path| list(&path));
        let mut programs = all.map(|path| path.join("outside_in"));
        let program = programs.find(|path| path.exists()).unwrap();
        let line = bed.run_on_node("ip", &["-o", "link", "show", "out"]);
        let index: u32 = line.split(':').next().unwrap().parse().unwrap();
        let address = line.split("link/ether ").nth(1).unwrap();
        let bytes = address[..17]
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap());
        let mut context = vec![0; CONTEXT_LEN];
        context[IFINDEX_AT..IFINDEX_AT + 4].copy_from_slice(&index.to_ne_bytes());
        Arrival {
            program: SchedClassifier::from_pin(program).unwrap(),
            context,
            device: bytes.collect::<Vec<u8>>().try_into().unwrap(),
        }
    }

    /// What the program answers, and the frame as it leaves it.
    fn show(&self, bed: &Bed, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; 2048];
        let run = || {
            self.program.test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&self.context),
                ..TestRunOptions::default()
            })
        };
        let done = bed.node.run(run).unwrap().unwrap();
        out.truncate(done.data_size_out as usize);
        (done.return_value, out)
    }
}

/// What is not a plain packet, or not one that begins a flow, goes on as it came.
#[test]
fn what_is_not_for_the_program_is_left_as_it_is() {
    isolated!(what_is_not_for_the_program_is_left_as_it_is, {
        let Some(mut bed) = Bed::new() else { return };
        bed.stand(Protocol::Tcp, &[&FAR]);
        let arrival = Arrival::of(&bed);
        let plain = syn(arrival.device);
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = plain.clone();
            change(&mut frame);
            frame
        };
        let strange: [(&str, Vec<u8>); 12] = [
            ("ARP", with(&|f| f[ETHERTYPE..IP].copy_from_slice(&[8, 6]))),
            ("another host's", with(&|f| f[5] ^= 1)),
            ("to all", with(&|f| f[..6].fill(0xff))),
            ("options", with(&|f| f[IP] = 0x46)),
            ("SCTP", with(&|f| f[PROTOCOL] = 132)),
            ("the middle of a connection", with(&|f| f[FLAGS] = ACK)),
            ("SYN and FIN", with(&|f| f[FLAGS] = SYN | 1)),
            ("nobody's port", with(&|f| f[PORTS + 3] ^= 1)),
            ("nobody's address", with(&|f| f[DESTINATION + 3] ^= 1)),
            ("a later piece", with(&|f| f[FRAGMENT + 1] = 9)),
            ("the last hop", with(&|f| f[HOPS] = 1)),
            ("cut off", with(&|f| f.truncate(PORTS + 10))),
        ];
        for (what, frame) in strange {
            let (answer, left) = arrival.show(&bed, &frame);
            assert_eq!((answer, left), (NEXT, frame), "{what}");
        }
        let taken = bed.outcomes().taken();
        // One that is on its last hop begins a flow, but its rules tell the client what happens to it.
        assert_eq!(taken, 1);
    });
}

/// The addresses, ports and checksums of a packet that is sent on, and that of its answer.
#[test]
fn a_first_packet_is_translated_and_sent() {
    isolated!(a_first_packet_is_translated_and_sent, {
        let Some(mut bed) = Bed::new() else { return };
        bed.stand(Protocol::Tcp, &[&FAR]);
        let arrival = Arrival::of(&bed);
        let (answer, sent) = arrival.show(&bed, &syn(arrival.device));
        assert_eq!(answer, REDIRECT);
        assert_eq!(&sent[IP + 12..PORTS], [192, 168, 0, 11, 10, 2, 0, 10]);
        assert_eq!(sent[HOPS], 63);
        assert_eq!(checksum(&sent[IP..PORTS]), 0);
        let port = u16::from_be_bytes([sent[PORTS], sent[PORTS + 1]]);
        assert!((1024..30_000).contains(&port), "{port}");
        assert_eq!(&sent[PORTS + 2..PORTS + 4], 8080_u16.to_be_bytes());
        assert_eq!(bed.outcomes().to_send, 1);
        // The same once more: the same flow.
        assert_eq!(arrival.show(&bed, &syn(arrival.device)), (REDIRECT, sent));
        assert_eq!(bed.outcomes().to_send, 1);
        // For a pod of this node only the destination is another one, and the kernel goes on.
        bed.stand(Protocol::Tcp, &[&NEAR]);
        let mut other = syn(arrival.device);
        other[PORTS] ^= 1;
        let (answer, passed) = arrival.show(&bed, &other);
        assert_eq!(answer, NEXT);
        assert_eq!(&passed[IP + 12..PORTS], [203, 0, 113, 2, 10, 1, 0, 10]);
        assert_eq!(passed[HOPS], 64);
    });
}
