//! Plugins one by one, behind a file like kubeadm's.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn questions_are_rewritten_and_answers_turned_back() {
    let rules = "rewrite name old.example.org web.shop.svc.cluster.local
    rewrite stop {
      name regex (.*)\\.shop\\.example\\.org {1}.shop.svc.cluster.local
      answer name (.*)\\.shop\\.svc\\.cluster\\.local {1}.shop.example.org
    }
    rewrite continue ttl exact web.shop.svc.cluster.local 7
    rewrite type MX A
    rewrite cname exact cdn.example.net www.example.org
    rewrite rcode exact ill.example.org SERVFAIL NXDOMAIN
    loop";
    let world = World::new(&KUBEADM.replace("loop", rules)).await;
    let (message, long) = world
        .ask_from("10.1.0.9", "old.example.org", rtype::A)
        .await
        .unwrap();
    assert_eq!(
        (answers(&message), long),
        (vec!["old.example.org. A 172.30.0.1".to_string()], true)
    );
    let message = world.ask("web.shop.example.org", rtype::A).await;
    assert_eq!(answers(&message), ["web.shop.example.org. A 172.30.0.1"]);
    let message = world.ask("web.shop.svc.cluster.local", rtype::A).await;
    assert_eq!(message.answers[0].ttl, 7);
    assert_eq!(
        world.ask("www.example.org", rtype::MX).await.question.rtype,
        rtype::MX
    );
    let message = world.ask("alias.example.org", rtype::A).await;
    assert_eq!(
        answers(&message),
        [
            "alias.example.org. CNAME www.example.org.",
            "www.example.org. A 203.0.113.2"
        ]
    );
    assert_eq!(
        world.ask("ill.example.org", rtype::A).await.rcode,
        rcode::NXDOMAIN
    );
}

#[tokio::test]
async fn templates_make_records() {
    let text = "template IN A example.org {
      match \"^ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)[.]example[.]org[.]$\"
      answer \"{{ .Name }} 60 IN A 203.0.{{ .Group.a }}.{{ index .Match 2 }}\"
      fallthrough
    }
    template IN AAAA example.org {
      rcode NOERROR
    }
    template IN ANY example.net {
      match ^known
      answer \"{{ .Name }} CNAME www.example.org.\"
    }
    template IN TXT . {
      answer \"{{ .Name }} A nonsense\"
    }
    loop";
    let world = World::new(&KUBEADM.replace("loop", text)).await;
    assert_eq!(
        answers(&world.ask("ip-113-7.example.org", rtype::A).await),
        ["ip-113-7.example.org. A 203.0.113.7"]
    );
    assert_eq!(
        answers(&world.ask("www.example.org", rtype::A).await).len(),
        1,
        "fallthrough"
    );
    let message = world.ask("www.example.org", rtype::AAAA).await;
    assert_eq!((message.rcode, message.answers.len()), (0, 0));
    assert_eq!(
        answers(&world.ask("known.example.net", rtype::A).await),
        [
            "known.example.net. CNAME www.example.org.",
            "www.example.org. A 203.0.113.2"
        ]
    );
    assert_eq!(world.ask("other.example.net", rtype::A).await.rcode, 3);
    assert_eq!(
        world.ask("x.example.org", rtype::TXT).await.rcode,
        rcode::SERVFAIL
    );
}

#[tokio::test]
async fn hosts_files_have_names_both_ways() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "203.0.113.5 a.example.org b.example.org # c\nfd00::5 a.example.org\n203.0.113.6 *.wild.example.org\n").unwrap();
    let text = format!(
        ". {{\n hosts {} {{\n ttl 9\n reload 1ms\n fallthrough\n }}\n forward . OTHER\n}}",
        file.path().display()
    );
    let world = World::new(&text).await;
    let message = world.ask("A.Example.org", rtype::A).await;
    assert_eq!(
        (answers(&message), message.answers[0].ttl),
        (vec!["A.Example.org. A 203.0.113.5".to_string()], 9)
    );
    assert_eq!(
        answers(&world.ask("a.example.org", rtype::AAAA).await),
        ["a.example.org. AAAA fd00::5"]
    );
    assert_eq!(
        world.ask("b.example.org", rtype::AAAA).await.answers.len(),
        0
    );
    assert_eq!(
        answers(&world.ask("5.113.0.203.in-addr.arpa", rtype::PTR).await).len(),
        2
    );
    assert_eq!(
        answers(&world.ask("any.wild.example.org", rtype::A).await).len(),
        1
    );
    assert_eq!(
        answers(&world.ask("www.example.org", rtype::A).await).len(),
        1,
        "fallthrough"
    );
    std::fs::write(file.path(), "203.0.113.77 a.example.org\n").unwrap();
    world
        .door
        .site()
        .tick(Instant::now() + Duration::from_secs(1));
    assert_eq!(
        answers(&world.ask("a.example.org", rtype::A).await),
        ["a.example.org. A 203.0.113.77"]
    );
}

#[tokio::test]
async fn clients_are_let_in_or_not() {
    let text = "acl . {
      allow net 10.1.0.0/16
      filter type AAAA
      drop net 10.2.0.0/16
      block
    }
    loop";
    let world = World::new(&KUBEADM.replace("loop", text)).await;
    let web = "web.shop.svc.cluster.local";
    assert_eq!(
        world
            .ask_from("10.1.0.9", web, rtype::A)
            .await
            .unwrap()
            .0
            .answers
            .len(),
        1
    );
    assert!(world.ask_from("10.2.0.9", web, rtype::A).await.is_none());
    assert_eq!(
        world
            .ask_from("10.3.0.9", web, rtype::A)
            .await
            .unwrap()
            .0
            .rcode,
        rcode::REFUSED
    );
    let filtered = world
        .ask_from("10.3.0.9", web, rtype::AAAA)
        .await
        .unwrap()
        .0;
    assert_eq!((filtered.rcode, filtered.answers.len()), (0, 0));
}

#[tokio::test]
async fn addresses_are_made_for_ipv6_and_answers_kept_small() {
    let world = World::new(&KUBEADM.replace("loop", "dns64 {\n allow_ipv4\n }\n minimal")).await;
    let message = world.ask("www.example.org", rtype::AAAA).await;
    assert_eq!(
        answers(&message),
        ["www.example.org. AAAA 64:ff9b::cb00:7102"]
    );
    assert!(message.answers[0].ttl <= 60);
    let message = world.ask("www.example.org", rtype::A).await;
    assert!(message.additionals.is_empty(), "minimal");
    assert_eq!(world.ask("no.example.org", rtype::AAAA).await.rcode, 3);
}

#[tokio::test]
async fn search_paths_have_an_end() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let ends: Vec<String> = (0..40).map(|i| format!("s{i}.example.org")).collect();
    std::fs::write(file.path(), format!("search {}\n", ends.join(" "))).unwrap();
    let text = format!(
        ". {{\n autopath {}\n forward . OTHER\n}}",
        file.path().display()
    );
    let world = World::new(&text).await;
    assert_eq!(world.ask("x.s0.example.org", rtype::A).await.rcode, 3);
    assert_eq!(world.other.asked(), autopath::SEARCH_MAX);
}

#[tokio::test]
async fn hosts_files_have_a_largest_size() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "203.0.113.5 a.example.org\n").unwrap();
    file.as_file().set_len(HOSTS_BYTES_MAX + 1).unwrap();
    let text = format!(". {{\n hosts {}\n}}", file.path().display());
    let world = World::new(&text).await;
    assert_eq!(world.ask("a.example.org", rtype::A).await.rcode, 3);
}

#[tokio::test]
async fn so_many_entries_are_fetched_anew_at_a_time() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let world = World::new(&format!(". {{\n cache\n forward . {address}\n}}")).await;
    let site = world.door.site();
    let chain = site.chains().next().cloned().unwrap();
    let mut request = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    request.extend_from_slice(b"\x01x\x00\x00\x01\x00\x01");
    let client = Client {
        address: "10.1.0.9:4242".parse().unwrap(),
        local: "172.30.0.10".parse().unwrap(),
        transport: Transport::Udp,
    };
    let asked = Asked::of(&Query::read(&request).unwrap(), client);
    for _ in 0..crate::site::REFRESHES_MAX + 10 {
        site.refresh(Arc::clone(&chain), asked.clone());
    }
    assert_eq!(site.refreshing(), crate::site::REFRESHES_MAX);
}
