//! Every option of every plugin.

use std::net::IpAddr;
use std::time::Duration;

use super::super::Zone;
use super::super::plugin::Plugins;
use super::super::plugin::cache::{Keep, Prefetch, Stale};
use super::super::plugin::filter::Action;
use super::super::plugin::forward::{Order, To};
use super::super::plugin::kubernetes::{Pods, SearchFrom};
use super::super::plugin::rewrite::{EdnsOption, How, Match, Rule};
use super::super::plugin::template::Part;
use super::super::plugin::watch::{AnswerClass, Level};
use super::{read, zone};

fn plugins(body: &str) -> Plugins {
    let text = format!("cluster.local {{\n{body}\n}}\n");
    let mut config = read(&text);
    config.blocks.remove(0).plugins
}

#[test]
fn every_option_of_kubernetes_is_read() {
    let kubernetes = plugins(
        "kubernetes cluster.local clusterset.local 10.0.0.0/8 {
            endpoint https://192.168.0.1:6443 https://192.168.0.2:6443
            tls cert key ca
            kubeconfig /etc/kubeconfig other
            apiserver_qps 5
            apiserver_burst 10
            namespaces shop bank
            namespaces more
            labels environment in (production, qa)
            pods verified
            endpoint_pod_names
            ttl 0
            noendpoints
            fallthrough
            ignore empty_service
            multicluster clusterset.local
            startup_timeout 1m30s
        }",
    )
    .kubernetes
    .unwrap();
    assert_eq!(kubernetes.zones[2], zone("10.in-addr.arpa"));
    assert_eq!(
        kubernetes.endpoint.as_deref(),
        Some("https://192.168.0.1:6443")
    );
    assert_eq!(kubernetes.tls.unwrap()[2].to_str(), Some("ca"));
    assert_eq!(
        kubernetes.kubeconfig,
        Some(("/etc/kubeconfig".into(), Some("other".into())))
    );
    assert_eq!(kubernetes.namespaces, ["shop", "bank", "more"]);
    assert_eq!(
        kubernetes.labels.as_deref(),
        Some("environment in (production, qa)")
    );
    assert_eq!((kubernetes.pods, kubernetes.ttl), (Pods::Verified, 0));
    assert!(kubernetes.endpoint_pod_names && kubernetes.no_endpoints && kubernetes.ignore_empty);
    assert_eq!(kubernetes.fallthrough, [Zone::root()]);
    assert_eq!(kubernetes.multicluster, [zone("clusterset.local")]);
    assert_eq!(kubernetes.startup_timeout, Duration::from_secs(90));
    let standard = plugins("kubernetes").kubernetes.unwrap();
    assert_eq!(
        (standard.zones, standard.ttl),
        (vec![zone("cluster.local")], 5)
    );
    assert_eq!(standard.pods, Pods::Disabled);
}

#[test]
fn every_option_of_forward_is_read() {
    let forward = plugins(
        "forward . 192.168.0.1 dns://192.168.0.2:54 tls://192.168.0.3%dns.example.org tls://192.168.0.4%a.b:854 \
         https://dns.example.org/dns-query [2001:db8::1]:53 2001:db8::2 /etc/resolv.conf {
            except example.org 10.0.0.0/8
            force_tcp
            prefer_udp
            expire 20s
            max_fails 3
            max_connect_attempts 2
            tls cert key ca
            tls_servername name
            policy round_robin
            health_check 0.5s no_rec domain example.net
            max_concurrent 7
            next NXDOMAIN
            next_on_nodata
            failover SERVFAIL REFUSED
            failfast_all_unhealthy_upstreams
            source_address 192.168.0.11
        }",
    )
    .forward
    .remove(0);
    let at = |text: &str| text.parse().unwrap();
    assert_eq!(
        forward.to,
        [
            To::Dns(at("192.168.0.1:53")),
            To::Dns(at("192.168.0.2:54")),
            To::Tls(at("192.168.0.3:853"), Some("dns.example.org".into())),
            To::Tls(at("192.168.0.4:854"), Some("a.b".into())),
            To::Https("https://dns.example.org/dns-query".into()),
            To::Dns(at("[2001:db8::1]:53")),
            To::Dns(at("[2001:db8::2]:53")),
            To::File("/etc/resolv.conf".into()),
        ]
    );
    assert_eq!(forward.except, ["example.org", "10.in-addr.arpa"].map(zone));
    assert_eq!(forward.expire, Duration::from_secs(20));
    assert_eq!(
        (
            forward.max_fails,
            forward.attempts_max,
            forward.concurrent_max
        ),
        (3, 2, 7)
    );
    assert_eq!(forward.check.period, Duration::from_millis(500));
    assert!(!forward.check.recursion && forward.check.domain == zone("example.net"));
    assert_eq!(forward.policy, Order::RoundRobin);
    assert_eq!((forward.next, forward.failover), (vec![3], vec![2, 5]));
    assert!(forward.force_tcp && forward.prefer_udp && forward.next_on_nodata && forward.fail_fast);
    assert_eq!(
        forward.source,
        Some("192.168.0.11".parse::<IpAddr>().unwrap())
    );
    assert_eq!(forward.tls.name.as_deref(), Some("name"));
    assert!(forward.tls.identity.is_some() && forward.tls.ca.is_some());
}

#[test]
fn every_option_of_cache_is_read() {
    let cache = plugins(
        "cache 60 example.org {
            success 100 50 2
            denial 200 40
            prefetch 10 2m 20%
            serve_stale 10m verify
            servfail 1s
            disable denial example.net
            disable success
            keepttl
        }",
    )
    .cache
    .unwrap();
    assert_eq!(cache.zones, [zone("example.org")]);
    assert_eq!(
        cache.success,
        Keep {
            capacity: 100,
            ttl_max: 50,
            ttl_min: 2
        }
    );
    assert_eq!(
        cache.denial,
        Keep {
            capacity: 200,
            ttl_max: 40,
            ttl_min: 5
        }
    );
    let gap = Duration::from_secs(120);
    assert_eq!(
        cache.prefetch,
        Some(Prefetch {
            amount: 10,
            gap,
            percent: 20
        })
    );
    let period = Duration::from_secs(600);
    assert_eq!(
        cache.stale,
        Some(Stale {
            period,
            verify: true
        })
    );
    assert_eq!(
        (cache.not_success, cache.not_denial),
        (vec![zone("example.org")], vec![zone("example.net")])
    );
    assert!(cache.keep_ttl);
    let standard = plugins("cache").cache.unwrap();
    assert_eq!(
        standard.success,
        Keep {
            capacity: 9984,
            ttl_max: 3600,
            ttl_min: 5
        }
    );
    assert_eq!(standard.denial.ttl_max, 1800);
}

#[test]
fn rewrites_of_all_forms_are_read() {
    let rules = plugins(
        "rewrite name a.example.org b.example.org
         rewrite continue name suffix .schmoogle.com. .google.com.
         rewrite stop {
            name regex (.*)\\.coredns\\.rocks {1}.default.svc.cluster.local
            answer name (.*)\\.default\\.svc\\.cluster\\.local {1}.coredns.rocks
            answer value (.*)\\.svc {1}.rocks
         }
         rewrite name regex ^(x)$ {1}.y answer auto
         rewrite type ANY HINFO
         rewrite class CH IN
         rewrite ttl regex (.*) 30-300
         rewrite ttl example.org -60
         rewrite cname exact cdn.example.net. other.example.org.
         rewrite rcode regex .* SERVFAIL NXDOMAIN
         rewrite edns0 local set 0xffee 0x61626364
         rewrite edns0 local append 0xffee {client_ip} revert
         rewrite edns0 nsid replace
         rewrite edns0 subnet set 24 56
         rewrite edns0 local unset 65518",
    )
    .rewrite;
    assert!(rules[1].go_on && !rules[0].go_on && !rules[2].go_on);
    let Rule::Name { of, to, auto, .. } = &rules[0].rule else {
        panic!()
    };
    assert_eq!(
        (of, to.as_str(), *auto),
        (&Match::Exact(zone("a.example.org")), "b.example.org.", true)
    );
    let Rule::Name { answers, auto, .. } = &rules[2].rule else {
        panic!()
    };
    assert!(!auto && answers.len() == 2 && answers[1].value);
    assert!(matches!(&rules[3].rule, Rule::Name { auto: true, .. }));
    assert_eq!(rules[4].rule, Rule::Type(255, 13));
    assert_eq!(rules[5].rule, Rule::Class(3, 1));
    assert!(matches!(rules[6].rule, Rule::Ttl(Match::Regex(_), 30, 300)));
    assert!(matches!(rules[7].rule, Rule::Ttl(Match::Exact(_), 0, 60)));
    assert!(matches!(rules[8].rule, Rule::Cname(..)));
    assert!(matches!(rules[9].rule, Rule::Code(_, 2, 3)));
    let options: Vec<_> = rules[10..]
        .iter()
        .map(|rule| match &rule.rule {
            Rule::Edns {
                how,
                option,
                revert,
            } => (*how, option.clone(), *revert),
            other => panic!("{other:?}"),
        })
        .collect();
    let client = EdnsOption::Variable(0xffee, "client_ip".into());
    let expected = [
        (How::Set, EdnsOption::Local(0xffee, b"abcd".to_vec()), false),
        (How::Append, client, true),
        (How::Replace, EdnsOption::Nsid, false),
        (How::Set, EdnsOption::Subnet(24, 56), false),
        (How::Unset, EdnsOption::Local(65518, Vec::new()), false),
    ];
    assert_eq!(options, expected);
}

#[test]
fn the_other_plugins_are_read() {
    let plugins = plugins(
        "bind 127.0.0.1 lo {
            except ::1
         }
         tls cert.pem key.pem
         reload 10s 3s
         bufsize 1400
         log . example.org \"{type} {common}\" {
            class denial error
         }
         errors {
            stacktrace
            consolidate 5m \".* i/o timeout$\" warning show_first
         }
         dns64 64:ff9b::/96 {
            translate_all
            allow_ipv4
         }
         acl example.org {
            allow net 10.0.0.0/8 192.168.0.1
            block type A AAAA net *
            filter type ANY
            drop
         }
         loadbalance round_robin {
            prefer 10.0.0.0/8
         }
         minimal
         rrl {
            responses-per-second 50
            ipv4-prefix-length 32
            ipv6-prefix-length 64
            slip-ratio 2
            max-table-size 1000
         }
         autopath @kubernetes
         transfer {
            to * 192.168.0.1 192.168.0.2:54
         }
         transfer example.org {
            to *
         }
         k8s_external example.org {
            apex ns
            ttl 7
            headless
            fallthrough
         }
         hosts /etc/some example.org {
            10.0.0.1 a.example.org b.example.org
            fd00::1 a.example.org
            ttl 60
            no_reverse
            reload 0
            fallthrough example.net
         }
         ready :9 {
            monitor continuously
         }
         prometheus
         template IN ANY example.org {
            match ^ip-(?P<a>[0-9]*)[.]example[.]org[.]$
            answer \"{{ .Name }} 60 IN A 10.0.0.{{ .Group.a }}\"
            additional \"{{ index .Match 1 }}{{- .Zone -}}  x\"
            rcode NXDOMAIN
            ederror 21 \"not here\"
            fallthrough
         }",
    );
    assert_eq!(plugins.bind[0].at, ["127.0.0.1", "lo"]);
    assert_eq!(plugins.bind[0].except, ["::1"]);
    assert_eq!(plugins.reload.unwrap().jitter, Duration::from_secs(3));
    assert_eq!(plugins.bufsize, Some(1400));
    assert_eq!(plugins.log.len(), 2);
    assert!(
        plugins.log[1]
            .format
            .starts_with("{type} {remote}:{port} - ")
    );
    assert_eq!(
        plugins.log[1].classes,
        [AnswerClass::Denial, AnswerClass::Error]
    );
    let consolidate = &plugins.errors.as_ref().unwrap().consolidate[0];
    assert!(consolidate.level == Level::Warning && consolidate.show_first);
    let dns64 = plugins.dns64.unwrap();
    assert!(dns64.translate_all && dns64.allow_ipv4 && dns64.prefix.prefix_len() == 96);
    let policies = &plugins.acl[0].policies;
    assert_eq!(policies.len(), 4);
    assert_eq!(
        (
            policies[1].action,
            &policies[1].types[..],
            policies[1].sources.len()
        ),
        (Action::Block, &[1, 28][..], 0)
    );
    assert_eq!(policies[0].sources.len(), 2);
    assert!(policies[2].types.is_empty(), "ANY is every type");
    assert!(plugins.minimal);
    let names = plugins.names();
    let order = names.iter().map(|name| {
        let known = crate::corefile::plugin::KNOWN.iter();
        known.clone().position(|known| known == name)
    });
    assert!(order.is_sorted() && names.contains(&"rrl") && names.contains(&"acl"));
    let rrl = plugins.rrl.as_ref().unwrap();
    assert_eq!((rrl.per_second.get(), rrl.table), (50, 1000));
    assert_eq!((rrl.v4_bits, rrl.v6_bits), (32, 64));
    assert_eq!(rrl.slip.unwrap().get(), 2);
    assert_eq!(
        plugins.autopath.as_ref().unwrap().from,
        SearchFrom::Kubernetes
    );
    let transfer = plugins.transfer.as_ref().unwrap();
    assert_eq!(transfer.rules.len(), 2);
    assert!(transfer.rules[0].1.anyone && transfer.rules[0].1.addresses[0].port() == 53);
    assert_eq!(plugins.external.as_ref().unwrap().apex, "ns");
    let hosts = plugins.hosts.as_ref().unwrap();
    assert_eq!(
        (hosts.inline.len(), hosts.ttl, hosts.reverse),
        (2, 60, false)
    );
    assert!(plugins.ready.unwrap().continuously);
    assert_eq!(plugins.prometheus.unwrap().to_string(), "127.0.0.1:9153");
    let template = &plugins.template[0];
    assert_eq!(template.kind, None);
    assert_eq!(
        template.additional[0].0,
        [Part::Match(1), Part::Zone, Part::Plain("x".into())]
    );
    assert_eq!(template.error, Some((21, "not here".into())));
}
