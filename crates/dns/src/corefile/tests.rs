//! Corefiles as people write them, and what they are told when something is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::plugin::forward::{To, UPSTREAMS_MAX};
use super::plugin::kubernetes::Pods;
use super::*;

mod options;

#[derive(Default)]
struct Files {
    files: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
}

impl Sources for Files {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn import(&self, pattern: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        let found = self.files.get(pattern).ok_or("there is no such file")?;
        Ok(vec![(pattern.to_string(), found.clone())])
    }
}

fn read(text: &str) -> Config {
    parse("Corefile", text, 53, &Files::default()).unwrap()
}

/// The message without the name of the file.
fn wrong(text: &str) -> String {
    let error = parse("Corefile", text, 53, &Files::default()).unwrap_err();
    let words = error.to_string();
    words.strip_prefix("Corefile:").unwrap().to_string()
}

fn zone(name: &str) -> Zone {
    Zone::parse(name).unwrap()
}

fn keys(text: &str) -> Vec<String> {
    let one = |key: &Key| format!("{}://{}:{}", key.scheme.name(), key.zone, key.port);
    let config = read(&format!("{text} {{\n}}\n"));
    config.blocks[0].keys.iter().map(one).collect()
}

const KUBEADM: &str = "\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
";

#[test]
fn the_file_of_kubeadm_works_unchanged() {
    let config = read(KUBEADM);
    let [block] = config.blocks.as_slice() else {
        panic!("{config:?}")
    };
    assert_eq!(
        block.keys,
        [Key {
            scheme: Scheme::Dns,
            zone: Zone::root(),
            port: 53
        }]
    );
    let plugins = &block.plugins;
    assert_eq!(plugins.errors, Some(plugin::Errors::default()));
    assert_eq!(plugins.health.unwrap().lameduck, Duration::from_secs(5));
    assert_eq!(plugins.health.unwrap().listen.to_string(), ":8080");
    assert_eq!(plugins.ready.unwrap().listen.port, 8181);
    assert_eq!(plugins.prometheus.unwrap().to_string(), ":9153");
    let kubernetes = plugins.kubernetes.as_ref().unwrap();
    assert_eq!(
        kubernetes.zones,
        ["cluster.local", "in-addr.arpa", "ip6.arpa"].map(zone)
    );
    assert_eq!((kubernetes.pods, kubernetes.ttl), (Pods::Insecure, 30));
    assert_eq!(
        kubernetes.fallthrough,
        ["in-addr.arpa", "ip6.arpa"].map(zone)
    );
    let forward = &plugins.forward[0];
    assert_eq!(forward.to, [To::File("/etc/resolv.conf".into())]);
    assert_eq!(forward.concurrent_max, 1000);
    let cache = plugins.cache.as_ref().unwrap();
    assert_eq!((cache.success.ttl_max, cache.denial.ttl_max), (30, 30));
    assert_eq!(cache.not_success, [zone("cluster.local")]);
    assert_eq!(cache.not_denial, [zone("cluster.local")]);
    assert!(plugins.loops && plugins.loadbalance.is_some());
    assert_eq!(plugins.reload.unwrap().interval, Duration::from_secs(30));
}

#[test]
fn keys_have_schemes_ports_and_ranges() {
    assert_eq!(keys("Example.org"), ["dns://example.org.:53"]);
    assert_eq!(
        keys(".:1053, tls://. https://a.b:8443"),
        ["dns://.:1053", "tls://.:853", "https://a.b.:8443"]
    );
    assert_eq!(keys("10.0.0.0/24:54"), ["dns://0.0.10.in-addr.arpa.:54"]);
    assert_eq!(
        keys("172.30.0.0/15"),
        [
            "dns://30.172.in-addr.arpa.:53",
            "dns://31.172.in-addr.arpa.:53"
        ],
        "a range that is no whole label"
    );
    assert_eq!(
        keys("2001:db8::/32:55"),
        ["dns://8.b.d.0.1.0.0.2.ip6.arpa.:55"]
    );
    assert_eq!(keys("fd00::/15").len(), 2);
    assert_eq!(keys("0.0.0.0/0"), ["dns://in-addr.arpa.:53"]);
}

#[test]
fn words_are_quoted_commented_and_filled_in() {
    let sources = Files {
        variables: [("ZONE", "example.org"), ("PORT", "1053")]
            .map(|(k, v)| (k.into(), v.into()))
            .into(),
        ..Files::default()
    };
    let text = "# a server\n{$ZONE}:{%PORT%} { # here\n  forward . 192.168.0.1#no more\n  template IN A {\n match \"^\\\"a b\\\"$\" # regex \n}\n hosts { 10.0.0.1 web.example.org\n}\n bufsize\n}\n";
    let config = parse("Corefile", text, 53, &sources).unwrap();
    let block = &config.blocks[0];
    assert_eq!(
        block.keys,
        [Key {
            scheme: Scheme::Dns,
            zone: zone("example.org"),
            port: 1053
        }]
    );
    assert_eq!(
        block.plugins.template[0].matches[0].regex().as_str(),
        "^\"a b\"$"
    );
    assert_eq!(
        block.plugins.hosts.as_ref().unwrap().inline.len(),
        1,
        "braces may stand on one line"
    );
    assert_eq!(block.plugins.bufsize, Some(1232));
    assert_eq!(config.blocks.len(), 1);
}

#[test]
fn a_file_without_braces_is_one_block() {
    let config = read("example.org,\nexample.net:54\nerrors\nforward . 192.168.0.1\n");
    assert_eq!(config.blocks[0].keys.len(), 2);
    assert!(config.blocks[0].plugins.errors.is_some());
    assert_eq!(read("").blocks.len(), 0);
}

#[test]
fn snippets_and_files_are_imported() {
    let sources = Files {
        files: [
            ("more", "import common\n"),
            ("blocks", "example.net {\n import common\n}\n"),
            ("self", "import self\n"),
        ]
        .map(|(k, v)| (k.into(), v.into()))
        .into(),
        ..Files::default()
    };
    let text = "(common) {\n errors\n log\n}\nexample.org {\n import more\n}\nimport blocks\n";
    let config = parse("Corefile", text, 53, &sources).unwrap();
    assert_eq!(config.blocks.len(), 2);
    for block in &config.blocks {
        assert!(block.plugins.errors.is_some() && block.plugins.log.len() == 1);
    }
    let error = parse("Corefile", "import self", 53, &sources).unwrap_err();
    assert!(error.words.contains("more than 16 deep"), "{error}");
    let words = wrong("(a) {\n}\n. {\n import b\n}\n");
    assert_eq!(
        words,
        "4:9: cannot import \"b\": there is no such file; snippets above: a"
    );
    assert_eq!(
        wrong("(a) {\n}\n(a) {\n}\n"),
        "3:1: there are two snippets (a)"
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_is_possible() {
    let cases = [
        (
            ". {\n  kubernetes {\n    pod insecure\n  }\n}",
            "3:5: kubernetes has no option \"pod\"; possible: endpoint, tls",
        ),
        (
            ". {\n  etcd\n}",
            "2:3: the plugin etcd of CoreDNS is not in Portolan; possible: bind, ",
        ),
        (
            ". {\n  kubernets\n}",
            "2:3: \"kubernets\" is no plugin; possible: bind, ",
        ),
        (
            ". {\n  cache\n  cache\n}",
            "3:3: cache stands twice in this server block",
        ),
        (". {\n  errors\n", "1:3: this { is never closed"),
        (". {\n}\n}\n", "3:1: this } closes nothing"),
        (". {\n errors \"\n}\n", "2:9: this \" is never closed"),
        (
            "errors\n",
            "1:1: errors is a plugin; it belongs into a server block",
        ),
        ("{\n}\n", "1:1: a { stands after what it belongs to"),
        ("a..b {\n}\n", "1:1: \"a..b\" is no key of a server block"),
        (
            "grpc://. {\n}\n",
            "1:1: there is no listener for grpc://; possible: dns://, tls://, https://",
        ),
        (".:70000 {\n}\n", "1:1: \"70000\" is no port, 1 to 65535"),
        (
            ". {\n}\na . {\n}\n",
            "3:1: dns://.:53 is served by the block at Corefile:1:1 already",
        ),
        (". {\n forward .\n}", "2:2: forward needs a server"),
        (
            ". {\n forward . resolver\n}",
            "2:12: \"resolver\" is no server: an address",
        ),
        (
            ". {\n forward . 192.168.0.1 {\n policy best\n}\n}",
            "3:9: \"best\" is no policy; possible: random",
        ),
        (
            ". {\n cache {\n prefetch 1 1m 95%\n}\n}",
            "3:16: \"95%\" is no percentage, 10% to 90%",
        ),
        (
            ". {\n cache {\n servfail 6m\n}\n}",
            "3:11: 6m is not between",
        ),
        (
            ". {\n health {\n lameduck 5\n}\n}",
            "3:11: \"5\" is no time such as 500ms, 5s or 1m30s",
        ),
        (
            ". {\n loop x\n}",
            "2:7: \"x\" is one word too many for loop",
        ),
        (". {\n loop {\n}\n}", "2:2: loop has no body in braces"),
        (
            ". {\n kubernetes 10.0.0.0/8\n}",
            "2:2: kubernetes needs a zone that is not a reverse one",
        ),
        (
            ". {\n kubernetes a {\n multicluster b\n}\n}",
            "2:2: the multicluster zone b. is not among the zones",
        ),
        (
            ". {\n acl {\n allow A\n}\n}",
            "3:8: \"A\" is no section of a policy; possible: type, net",
        ),
        (
            ". {\n dns64 10.0.0.0/8\n}",
            "2:8: \"10.0.0.0/8\" is no prefix of RFC 6052",
        ),
        (
            ". {\n rewrite name regex ( x\n}",
            "2:21: \"(\" is no regular expression: ",
        ),
        (
            ". {\n template IN A {\n answer \"{{ .Message }}\"\n}\n}",
            "3:9: {{ .Message }} is not understood; possible: {{ .Name }}",
        ),
        (". {\n transfer\n}", "2:2: transfer needs a line"),
        (
            ". {\n rrl\n}",
            "2:2: rrl needs a line \"responses-per-second NUMBER\"",
        ),
        (
            ". {\n rrl {\n  responses-per-second 0\n }\n}",
            "3:24: \"0\" is no number of answers, 1 to 1000000",
        ),
        (
            ". {\n rrl {\n  window 15\n }\n}",
            "3:3: rrl has no option \"window\"; possible: responses-per-second",
        ),
        (
            ". {\n rrl {\n  max-table-size 4194305\n }\n}",
            "3:18: \"4194305\" is no number of networks, 1 to 4194304",
        ),
        (
            ". {\n bufsize 100\n}",
            "2:10: \"100\" is no size of a buffer, 512 to 4096",
        ),
        (
            "a\nb {\n errors\n}\nc.d {\n}",
            "5:1: a server block opens here, but the one above has no braces",
        ),
        ("a,\n", "1:1: another key should follow the comma"),
        (
            "a {\nb {\nc {\nd {\ne {\n",
            "5:3: braces are nested more than 4 deep",
        ),
    ];
    for (text, expected) in cases {
        let words = wrong(text);
        assert!(words.starts_with(expected), "{text:?}: {words}");
    }
}

#[test]
fn limits_hold() {
    let servers = vec!["192.168.0.1"; UPSTREAMS_MAX + 1].join(" ");
    assert!(wrong(&format!(". {{\n forward . {servers}\n}}")).contains("at most 15 servers"));
    let many: String = (0..=BLOCKS_MAX).map(|i| format!("z{i} {{\n}}\n")).collect();
    assert!(wrong(&many).contains("more than 1000 server blocks"));
    assert!(wrong(&"a".repeat(FILE_MAX + 1)).contains("at most 1048576"));
    assert!(wrong(&"a ".repeat(WORDS_MAX + 1)).contains("more than 200000 words"));
    let bomb: String = (1..16)
        .map(|i| format!("(s{i}) {{\n import s{}\n import s{0}\n}}\n", i - 1))
        .collect();
    let bomb =
        format!("(s0) {{\n x\n x\n x\n x\n x\n x\n x\n x\n}}\n{bomb}. {{\n import s15\n}}\n");
    let words = wrong(&bomb);
    assert!(
        words.contains("more than 200000 words") || words.contains("deep"),
        "{words}"
    );
    let pattern = "(a{1000}){1000}";
    assert!(wrong(&format!(". {{\n rewrite name regex {pattern} x\n}}")).contains("size limit"));
    let data = "a".repeat(513);
    let words = wrong(&format!(". {{\n rewrite edns0 local set 0xffee {data}\n}}"));
    assert!(words.contains("at most 512 bytes"), "{words}");
    assert!(wrong(". {\n cache {\n success 10000001\n}\n}").contains("1 to 10000000"));
    assert!(wrong(". {\n health {\n lameduck 100000h\n}\n}").contains("is no time"));
    let deep = "10.0.0.0/25 10.0.0.0/1";
    assert_eq!(keys(deep).len(), 128 + 128);
}

fn pieces() -> impl Strategy<Value = String> {
    let words: Vec<&str> = plugin::KNOWN
        .into_iter()
        .chain([
            "{",
            "}",
            "\n",
            "\n",
            "\n",
            "\"",
            "#",
            "{$X}",
            "(s)",
            "example.org",
            ".",
            ":53",
            "10.0.0.0/8",
            "30",
            "5s",
            "*",
            "success",
            "pods",
            "insecure",
            "name",
            "regex",
            "(.*)",
            "{1}",
            "IN",
            "A",
            "net",
            "type",
            "to",
            "answer",
            ",",
        ])
        .collect();
    prop::collection::vec(prop::sample::select(words), 0..60).prop_map(|words| words.join(" "))
}

proptest! {
    /// Outside input never panics, and an error stands inside the file.
    #[test]
    fn any_text_is_read_or_told_what_is_wrong(text in prop_oneof![pieces(), any::<String>()]) {
        if let Err(error) = parse("Corefile", &text, 53, &Files::default()) {
            prop_assert!(error.place.line as usize <= text.split('\n').count());
            prop_assert!(!error.words.is_empty());
        }
    }

    /// What is in a quoted word is what comes out.
    #[test]
    fn quoted_words_keep_what_is_in_them(word in "[^\"\\\\{}]{1,20}") {
        let text = format!(". {{\n hosts \"{word}\"\n}}\n");
        let config = parse("Corefile", &text, 53, &Files::default()).unwrap();
        let hosts = config.blocks[0].plugins.hosts.clone().unwrap();
        prop_assert_eq!(hosts.file.to_str(), Some(word.as_str()));
    }
}
