//! Servers of all kinds, played in this process: they answer well, badly, slowly or not at all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use super::*;
use crate::corefile::{self, Sources, plugin};
use crate::message::{Message, record};
use crate::wire::{Name, class, rcode, rtype};

struct Nothing;

impl Sources for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn import(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        Err("no files".to_string())
    }
}

fn options(line: &str) -> plugin::Forward {
    let config = corefile::parse(
        "Corefile",
        &format!(". {{\n forward {line}\n}}\n"),
        53,
        &Nothing,
    )
    .unwrap();
    config.blocks[0].plugins.forward[0].clone()
}

fn ask_for(name: &str) -> Ask {
    let name = Name::parse(name).unwrap();
    Ask::of(crate::message::Question {
        name,
        rtype: rtype::A,
        class: class::IN,
    })
}

/// What a played server does with a query.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Well,
    /// With this code.
    Code(u16),
    Silent,
    /// Over UDP only a part, with TC.
    Truncating,
    /// The question comes back in small letters.
    Lowering,
    /// Many wrong answers, and then the right one.
    Noisy,
    /// Only wrong ones.
    Forging,
    /// The first datagram is lost.
    Forgetful,
}

/// A server on loopback, over UDP and TCP.
struct Played {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    over_tcp: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

fn reply(bytes: &[u8], manner: Manner, stream: bool) -> Message {
    let mut message = Message::read(bytes).unwrap();
    message.response = true;
    message.recursion_available = true;
    match manner {
        Manner::Code(code) => message.rcode = code,
        Manner::Truncating if !stream => message.truncated = true,
        _ => message.answers = vec![record("www.example.org. 60 A 203.0.113.2").unwrap()],
    }
    if manner == Manner::Lowering {
        message.question.name = message.question.name.lowered();
    }
    message
}

async fn play(manner: Manner) -> Played {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let (asked, over_tcp) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let mut tasks = JoinSet::new();
    let count = Arc::clone(&asked);
    tasks.spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            let before = count.fetch_add(1, Ordering::Relaxed);
            if manner == Manner::Silent || manner == Manner::Forgetful && before == 0 {
                continue;
            }
            let message = reply(&buffer[..length], manner, false);
            let mut wrong = message.clone();
            wrong.id = wrong.id.wrapping_add(1);
            let strange = match manner {
                Manner::Noisy => datagram::STRANGE_MAX / 2,
                Manner::Forging => datagram::STRANGE_MAX,
                _ => 0,
            };
            for _ in 0..strange {
                udp.send_to(&wrong.encoded(None, 1232), from).await.unwrap();
            }
            if manner != Manner::Forging {
                udp.send_to(&message.encoded(None, 1232), from)
                    .await
                    .unwrap();
            }
        }
    });
    let (count, streams) = (Arc::clone(&asked), Arc::clone(&over_tcp));
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            streams.fetch_add(1, Ordering::Relaxed);
            while let Ok(length) = stream.read_u16().await {
                let mut bytes = vec![0; usize::from(length)];
                stream.read_exact(&mut bytes).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let answer = reply(&bytes, manner, true).encoded(None, 65_535);
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        }
    });
    Played {
        address,
        asked,
        over_tcp,
        _tasks: tasks,
    }
}

impl Played {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn over_tcp(&self) -> usize {
        self.over_tcp.load(Ordering::Relaxed)
    }
}

fn forward(servers: &[&Played], body: &str) -> Forward {
    let addresses: Vec<String> = servers
        .iter()
        .map(|server| server.address.to_string())
        .collect();
    let line = format!(". {} {{\n{body}\n}}", addresses.join(" "));
    Forward::new(&options(&line), false).unwrap()
}

async fn answered(forward: &Forward) -> Result<Report, Failed> {
    forward.ask(&ask_for("www.Example.org")).await
}

#[tokio::test]
async fn an_answer_comes_over_udp() {
    let server = play(Manner::Well).await;
    let forward = forward(&[&server], "");
    let report = answered(&forward).await.unwrap();
    assert_eq!(report.message.answers.len(), 1);
    assert_eq!(
        (report.server, server.over_tcp()),
        (server.address.to_string(), 0)
    );
    let counts = &forward.servers()[0].counts;
    let total: u64 = counts
        .times
        .iter()
        .map(|bucket| bucket.load(Ordering::Relaxed))
        .sum();
    assert_eq!(total, 1);
}

#[tokio::test]
async fn what_is_cut_or_in_doubt_is_fetched_over_tcp() {
    for manner in [Manner::Truncating, Manner::Lowering, Manner::Forging] {
        let server = play(manner).await;
        let forward = forward(&[&server], "");
        let report = answered(&forward).await.unwrap();
        assert_eq!(
            (report.message.answers.len(), server.over_tcp()),
            (1, 1),
            "{manner:?}"
        );
        answered(&forward).await.unwrap();
        assert_eq!(
            server.over_tcp(),
            1,
            "{manner:?}: the connection is kept, or UDP is enough"
        );
    }
}

#[tokio::test]
async fn answers_to_other_questions_are_not_believed() {
    let server = play(Manner::Noisy).await;
    let forward = forward(&[&server], "");
    assert_eq!(answered(&forward).await.unwrap().message.answers.len(), 1);
    assert_eq!(server.over_tcp(), 0);
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again() {
    let server = play(Manner::Forgetful).await;
    let forward = forward(&[&server], "");
    assert_eq!(answered(&forward).await.unwrap().message.answers.len(), 1);
    assert_eq!((server.asked(), server.over_tcp()), (2, 0));
}

#[tokio::test]
async fn a_connection_carries_many_queries() {
    let server = play(Manner::Well).await;
    let forward = forward(&[&server], "force_tcp");
    for _ in 0..10 {
        answered(&forward).await.unwrap();
    }
    assert_eq!((server.over_tcp(), server.asked()), (1, 10));
    let counts = &forward.servers()[0].counts;
    assert_eq!(counts.reused.load(Ordering::Relaxed), 9);
}

#[tokio::test]
async fn idle_connections_have_a_limit() {
    let server = play(Manner::Well).await;
    let streams = stream::Streams::new(server.address, None, Duration::from_secs(60), None);
    let streams = Arc::new(streams);
    // Each task opens one: none is idle before all have theirs. The played server takes one at a time, so they are
    // opened here and handed over.
    let mut held = Vec::new();
    for _ in 0..IDLE_MAX + 8 {
        held.push(stream::dial(server.address, None).await.unwrap());
    }
    for stream in held {
        streams.keep(Box::new(stream));
    }
    assert_eq!(streams.idle(), IDLE_MAX);
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = silent.local_addr().unwrap();
    drop(silent);
    let well = play(Manner::Well).await;
    let ill = play(Manner::Code(rcode::SERVFAIL)).await;
    let line = format!(
        ". {closed} {} {} {{\n policy sequential\n}}",
        ill.address, well.address
    );
    let forward = Forward::new(&options(&line), false).unwrap();
    let report = answered(&forward).await.unwrap();
    assert_eq!(report.server, well.address.to_string());
    let only = self::forward(&[&ill], "");
    assert_eq!(
        answered(&only).await.unwrap().message.rcode,
        rcode::SERVFAIL,
        "when there is no other"
    );
}

#[tokio::test]
async fn failover_names_codes() {
    let refusing = play(Manner::Code(rcode::REFUSED)).await;
    let well = play(Manner::Well).await;
    let kept = forward(&[&refusing, &well], "policy sequential");
    assert_eq!(answered(&kept).await.unwrap().message.rcode, rcode::REFUSED);
    let over = forward(&[&refusing, &well], "policy sequential\n failover REFUSED");
    assert_eq!(answered(&over).await.unwrap().message.rcode, rcode::NOERROR);
}

#[tokio::test]
async fn policies_choose() {
    let (a, b) = (play(Manner::Well).await, play(Manner::Well).await);
    let turns = forward(&[&a, &b], "policy round_robin");
    for _ in 0..10 {
        answered(&turns).await.unwrap();
    }
    assert_eq!((a.asked(), b.asked()), (5, 5));
    let first = forward(&[&a, &b], "policy sequential");
    answered(&first).await.unwrap();
    assert_eq!((a.asked(), b.asked()), (6, 5));
    let silent = play(Manner::Silent).await;
    let both = forward(&[&silent, &a], "policy parallel");
    for _ in 0..4 {
        let before = std::time::Instant::now();
        assert_eq!(answered(&both).await.unwrap().server, a.address.to_string());
        assert!(
            before.elapsed() < TRY_TIMEOUT,
            "the other one is not waited for"
        );
    }
}

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_server_that_says_servfail_is_down_until_it_is_well() {
    let ill = play(Manner::Code(rcode::SERVFAIL)).await;
    let well = play(Manner::Well).await;
    let forward = forward(
        &[&ill, &well],
        "policy sequential\n health_check 10ms\n max_fails 2",
    );
    answered(&forward).await.unwrap();
    let servers = forward.servers();
    until("checks see SERVFAIL", || servers[0].is_down(2)).await;
    assert!(servers[0].counts.checks_failed.load(Ordering::Relaxed) >= 2 && !servers[1].is_down(2));
    assert!(!servers[0].is_down(0), "max_fails 0 never takes one out");
    let fast = self::forward(
        &[&ill],
        "health_check 10ms\n failfast_all_unhealthy_upstreams",
    );
    answered(&fast).await.unwrap();
    until("it is down", || fast.servers()[0].is_down(2)).await;
    assert!(matches!(answered(&fast).await, Err(Failed::Servers(none)) if none.is_empty()));
}

#[tokio::test]
async fn so_many_wait_and_no_more() {
    let silent = play(Manner::Silent).await;
    let forward = Arc::new(forward(&[&silent], "max_concurrent 2"));
    let mut waiting = JoinSet::new();
    for _ in 0..2 {
        let forward = Arc::clone(&forward);
        waiting.spawn(async move { answered(&forward).await.is_err() });
    }
    until("two wait", || silent.asked() >= 2).await;
    assert!(matches!(answered(&forward).await, Err(Failed::Busy)));
    assert_eq!(forward.rejected.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_forward_without_a_number_has_room_for_many_all_the_same() {
    let server = play(Manner::Well).await;
    let forward = forward(&[&server], "");
    let others = forward.room.try_acquire_many(CONCURRENT_DEFAULT as u32 - 1);
    answered(&forward).await.expect("one more has room");
    let last = forward.room.try_acquire().expect("it has left");
    assert!(matches!(answered(&forward).await, Err(Failed::Busy)));
    drop((others, last));
    answered(&forward).await.expect("there is room again");
}

#[tokio::test(start_paused = true)]
async fn whether_a_silent_server_asks_us_is_tried_so_often() {
    let silent = play(Manner::Silent).await;
    let forward = forward(&[&silent], "");
    let tries = check::LOOP_TRIES_MAX as u32;
    let (least, most) = (check::LOOP_RETRY, check::LOOP_RETRY + TRY_TIMEOUT);
    let began = tokio::time::Instant::now();
    let trying = check::find_loop(Arc::clone(&forward.servers()[0]));
    let ended = tokio::time::timeout(most * (tries + 1), trying).await;
    ended.expect("it is given up");
    // In virtual time: every try was made.
    assert!(began.elapsed() >= least * tries);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_deadline() {
    let silent = [
        play(Manner::Silent).await,
        play(Manner::Silent).await,
        play(Manner::Silent).await,
    ];
    let forward = forward(&[&silent[0], &silent[1], &silent[2]], "");
    let began = tokio::time::Instant::now();
    let failed = answered(&forward).await;
    let Err(Failed::Servers(failed)) = failed else {
        panic!("{failed:?}")
    };
    assert_eq!(
        failed.len(),
        3,
        "two had TRY_TIMEOUT, and the third what was left"
    );
    assert!(began.elapsed() >= DEADLINE && began.elapsed() < DEADLINE + Duration::from_millis(100));
}

#[tokio::test]
async fn a_server_that_asks_us_is_left_out() {
    let server = play(Manner::Well).await;
    let forward = Forward::new(&options(&format!(". {}", server.address)), true).unwrap();
    until("the token is sent", || server.asked() > 0).await;
    let token = forward.servers()[0].token.clone();
    assert!(!forward.is_token("www.example.org."));
    assert!(forward.is_token(&token) && forward.servers()[0].is_looping());
    assert!(matches!(answered(&forward).await, Err(Failed::Servers(_))));
}

#[tokio::test]
async fn names_are_for_one_forward_or_another() {
    let server = play(Manner::Well).await;
    let line = format!(
        "example.org {} {{\n except inner.example.org\n}}",
        server.address
    );
    let forward = Forward::new(&options(&line), false).unwrap();
    assert!(forward.takes("www.example.org.") && forward.takes("example.org."));
    assert!(!forward.takes("www.inner.example.org.") && !forward.takes("example.net."));
}

#[test]
fn resolv_conf_names_servers_and_search_paths() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "# a\nnameserver 192.168.0.1\nnameserver fd00::1%eth0\nsearch a b\ndomain c\nsearch d e\noptions ndots:5\n";
    std::fs::write(file.path(), text).unwrap();
    let (servers, search) = read_resolv_conf(file.path()).unwrap();
    assert_eq!(
        servers,
        ["192.168.0.1:53", "[fd00::1]:53"].map(|text| text.parse().unwrap())
    );
    assert_eq!(search, ["d", "e"]);
    let missing = read_resolv_conf(std::path::Path::new("/nowhere/resolv.conf")).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/resolv.conf"));
}
