//! What CoreDNS' own tests expect of its plugins `kubernetes` and `k8s_external`, held against our zone.
//!
//! A case that we answer otherwise on purpose stands in the table of docs/dns.md with the reason; one that stands there
//! and does not differ fails, too, so that the table stays true.

#![allow(clippy::unwrap_used)] // fixtures are ours

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use portolan_dns::wire::{Name, Query};
use portolan_dns::zone::{Config, External, Index, Outcome, PodNames, candidates, is_first_of};
use portolan_model::names::{Change, Kind, Label};
use portolan_testkit::dns::message::{self, Message, Record, rcode_name, type_number};
use portolan_testkit::dns::objects;
use serde_json::Value;

/// Seconds in the cases' SOA are not compared; any will do.
const NOW_S: u64 = 3;

/// A TTL that the cases use for any other.
const ANY_TTL: u32 = 303;

/// Bytes for an answer that is not to be cut.
const BYTES: usize = 65_535;

#[test]
fn cases_of_coredns() {
    let differing = table_of_differences();
    let mut unseen: BTreeSet<&str> = differing.iter().map(String::as_str).collect();
    let mut wrong = Vec::new();
    let mut passed = 0;
    for file in ["coredns-unit.jsonl", "coredns-ci.jsonl"] {
        for line in text(file).lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let id = case["id"].as_str().unwrap();
            match (run(&case), unseen.remove(id)) {
                (Ok(()), false) => passed += 1,
                (Err(_), true) => {}
                (Ok(()), true) => {
                    wrong.push(format!("{id} does not differ: take it off docs/dns.md"))
                }
                (Err(how), false) => wrong.push(format!("{id}: {how}")),
            }
        }
    }
    wrong.extend(
        unseen
            .iter()
            .map(|id| format!("{id} of docs/dns.md is no case")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(passed + differing.len(), 215);
}

/// Cases in the first column of the table of docs/dns.md.
fn table_of_differences() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/dns.md");
    let text = std::fs::read_to_string(path).unwrap();
    let cells = text
        .lines()
        .filter_map(|line| line.strip_prefix("| case `"));
    cells
        .map(|rest| rest.split('`').next().unwrap().to_owned())
        .collect()
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/dns")
}

fn text(file: &str) -> String {
    std::fs::read_to_string(directory().join(file)).unwrap()
}

fn fixture(name: &str) -> Value {
    serde_json::from_str(&text(&format!("fixtures/{name}.json"))).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn names(value: &Value) -> Vec<Name> {
    strings(value)
        .iter()
        .map(|t| Name::parse(t).unwrap())
        .collect()
}

/// The address at which the server of a case is: the fixtures have endpoints for some.
fn own(case: &Value) -> Vec<IpAddr> {
    let config = &case["config"];
    let texts = match (config["local_ips"].as_array(), case["fixture"].as_str()) {
        (Some(_), _) => strings(&config["local_ips"]),
        (None, Some("ci" | "ci-after-new-svc")) => vec!["10.244.0.2".to_owned()],
        _ => vec!["127.0.0.1".to_owned()],
    };
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn config(case: &Value) -> Config {
    let config = &case["config"];
    let labels = strings(&config["namespaces"]);
    Config {
        zones: names(&config["zones"]),
        multicluster: names(&config["multicluster"]),
        namespaces: labels.iter().map(|l| Label::new(l).unwrap()).collect(),
        pods: match config["pods"].as_str() {
            Some("insecure") => PodNames::Insecure,
            Some("verified") => PodNames::Verified,
            _ => PodNames::Disabled,
        },
        endpoint_pod_names: config["endpoint_pod_names"] == true,
        ignore_empty_service: config["ignore_empty_service"] == true,
        zonal: config["zonal"] == true,
        own: own(case),
        ..Config::default()
    }
}

fn run(case: &Value) -> Result<(), String> {
    let (name, rtype) = (&case["query"]["name"], &case["query"]["type"]);
    let name = name.as_str().unwrap();
    let rtype = type_number(rtype.as_str().unwrap());
    let asked = message::query(name, rtype, None);
    let mut out = Vec::new();
    let answered = answer(case, &Query::read(&asked).unwrap(), &mut out);
    let mut message = message::read(&out);
    complete(case, answered, &mut message, name, rtype);
    compare(case, &message, name)
}

fn answer(case: &Value, query: &Query<'_>, out: &mut Vec<u8>) -> Outcome {
    let mut index = filled(case);
    if case["config"]["not_synced"] == true {
        index = Index::new(config(case));
        let namespace = Label::new("testns").unwrap();
        index.apply(Change::Listing(Kind::Namespace), NOW_S);
        index.apply(Change::Namespace(namespace), NOW_S);
    }
    let zone = index.zone();
    if case["config"]["plugin"] == "k8s_external" {
        let zones = names(&case["config"]["zones"]);
        let headless = case["config"]["headless"] == true;
        let apex = Label::new("dns").unwrap();
        let external = External::new(zones, apex, headless, 5, own(case));
        return external.answer(zone, query, BYTES, 0, out);
    }
    if case["config"]["autopath"].is_null() {
        return zone.answer(query, BYTES, 0, out);
    }
    let client: IpAddr = "10.244.1.11".parse().unwrap();
    assert_eq!(zone.namespace_at(client), Some(&b"test-1"[..]));
    let search = names(&case["config"]["client_search"]);
    let first = candidates(query.name, &search).expect("a search");
    for candidate in first {
        let outcome = match candidate.as_wire() == query.name {
            true => zone.answer(query, BYTES, 0, out),
            false => zone.answer_as(query, &candidate, BYTES, 0, out),
        };
        match outcome {
            Outcome::Denied => {}
            // The host's own search domain: nobody knows such a name.
            Outcome::NotOurs if candidate.to_string().ends_with(".internal.") => {}
            Outcome::NotOurs => {
                let mut builder = portolan_dns::wire::Builder::new(query, out, BYTES);
                builder.record_with(12, 5, 5, |out| out.extend_from_slice(candidate.as_wire()));
                builder.finish();
                return Outcome::Elsewhere(candidate);
            }
            outcome => return outcome,
        }
    }
    panic!("no name of the search path exists")
}

fn filled(case: &Value) -> Index {
    let cluster = fixture(case["fixture"].as_str().unwrap());
    objects::index(config(case), &cluster, NOW_S)
}

/// Does what other plugins do in a case: the upstream of an alias, and the zone file that is fallen through to.
fn complete(case: &Value, outcome: Outcome, message: &mut Message, name: &str, rtype: u16) {
    let mut elsewhere: Vec<Record> = Vec::new();
    let stub = strings(&case["upstream_stub"]["answer"]);
    elsewhere.extend(stub.iter().map(|line| record(line)));
    elsewhere.push(record("example.net. 5 IN A 13.14.15.16"));
    let target = match outcome {
        Outcome::Elsewhere(target) => target.to_string(),
        Outcome::Denied => {
            let zones = strings(&case["config"]["fallthrough"]);
            if zones
                .iter()
                .any(|zone| zone == "." || name.ends_with(zone.as_str()))
            {
                *message = from_file(
                    message,
                    "fallthrough-cluster.local.zone",
                    "cluster.local.",
                    name,
                    rtype,
                );
            }
            return;
        }
        _ => return,
    };
    if case["config"]["autopath"].is_null() {
        let found = elsewhere
            .into_iter()
            .filter(|record| record.owner == target);
        message.sections[0].extend(found);
    } else {
        let file = from_file(
            message,
            "autopath-example.net.zone",
            "example.net.",
            &target,
            rtype,
        );
        message.sections[0].extend(file.sections[0].iter().cloned());
        message.sections[1] = file.sections[1].clone();
    }
}

/// What a zone file has, with its NS as the authority.
fn from_file(message: &Message, file: &str, zone: &str, name: &str, rtype: u16) -> Message {
    let all: Vec<Record> = text(&format!("fixtures/{file}"))
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let owner = words.next().unwrap();
            let rest: Vec<&str> = words.collect();
            record(&format!("{owner} 5 {}", rest.join(" ")))
        })
        .collect();
    let answer = |r: &&Record| r.owner == name && type_number(&r.rtype) == rtype;
    let authority = |r: &&Record| r.owner == zone && r.rtype == "NS";
    Message {
        rcode: 0,
        sections: [
            all.iter().filter(answer).cloned().collect(),
            all.iter().filter(authority).cloned().collect(),
            Vec::new(),
        ],
        ..message.clone()
    }
}

fn record(line: &str) -> Record {
    let mut words = line.splitn(5, ' ');
    let mut next = || words.next().unwrap().to_owned();
    let (owner, ttl, _, rtype, data) = (next(), next(), next(), next(), next());
    Record {
        owner,
        rtype,
        data,
        ttl: ttl.parse().unwrap(),
    }
}

fn compare(case: &Value, message: &Message, name: &str) -> Result<(), String> {
    let expect = &case["expect"];
    let told = || format!("{name}: {message:#?}");
    if expect["rcode"] != rcode_name(message.rcode) {
        return Err(format!(
            "{} instead of {}",
            rcode_name(message.rcode),
            expect["rcode"]
        ));
    }
    if let Some(target) = expect["srv_target"].as_str() {
        let [answer, _, additional] = &message.sections;
        let found = answer
            .first()
            .and_then(|r| r.data.split(' ').nth(3))
            .unwrap_or_default();
        // The only pattern among the cases is that of a label made of an address.
        let dashed = || found.starts_with("10-244-3-16.headless-2.test-3.svc.cluster.local.");
        let same = if target.starts_with("RE:") {
            dashed()
        } else {
            found == target
        };
        let counts = (answer.len(), additional.len()) == (1, 1);
        return if same && counts { Ok(()) } else { Err(told()) };
    }
    for (index, section) in ["answer", "authority", "additional"]
        .into_iter()
        .enumerate()
    {
        let mut expected: Vec<Record> = strings(&expect[section])
            .iter()
            .map(|l| record(l))
            .collect();
        let mut found = message.sections[index].clone();
        for record in expected.iter_mut().chain(&mut found) {
            if record.rtype == "SOA" {
                record.data = record.data.split(' ').next().unwrap().to_owned();
            }
        }
        expected.sort();
        found.sort();
        let same = expected.len() == found.len()
            && expected.iter().zip(&found).all(|(expected, found)| {
                let ttl = expected.ttl == ANY_TTL || expected.ttl == found.ttl;
                let rest = (&expected.owner, &expected.rtype, &expected.data);
                ttl && rest == (&found.owner, &found.rtype, &found.data)
            });
        if !same {
            return Err(format!("{section}: {expected:#?} instead of {found:#?}"));
        }
    }
    let [answer, ..] = &message.sections;
    if let Some(at) = answer.iter().position(|record| record.rtype == "CNAME")
        && at > 0
    {
        return Err(format!("an alias comes before its target: {answer:#?}"));
    }
    Ok(())
}

#[test]
fn functions_of_coredns() {
    let functions: Value = serde_json::from_str(&text("functions.json")).unwrap();
    let autopath = &functions["autopath"]["first_in_search_path"];
    let search = names(&autopath["search"]);
    for case in autopath["cases"].as_array().unwrap() {
        let name = Name::parse(case[0].as_str().unwrap()).unwrap();
        assert_eq!(
            is_first_of(name.as_wire(), &search),
            case[1] == true,
            "{name}"
        );
    }
    let servers = &functions["ns_addrs"];
    let case = serde_json::json!({
        "config": {"zones": [servers["zone"]], "local_ips": servers["local_ips"]},
        "fixture": servers["fixture"],
    });
    let index = filled(&case);
    let asked = message::query(servers["zone"].as_str().unwrap(), type_number("NS"), None);
    let mut out = Vec::new();
    index
        .zone()
        .answer(&Query::read(&asked).unwrap(), BYTES, 0, &mut out);
    let additional = &message::read(&out).sections[2];
    let found: BTreeSet<String> = additional
        .iter()
        .map(|r| format!("{} {} {}", r.owner, r.rtype, r.data))
        .collect();
    assert_eq!(found, strings(&servers["records"]).into_iter().collect());
}

#[test]
fn transfers_of_coredns() {
    for (file, zone, multicluster) in [
        ("axfr-cluster.local.txt", "cluster.local.", false),
        ("axfr-clusterset.local.txt", "clusterset.local.", true),
    ] {
        let zones: &[&str] = if multicluster { &[zone] } else { &[] };
        let case = serde_json::json!({
            "config": {"zones": [zone], "multicluster": zones, "namespaces": ["testns", "kube-system"],
                "local_ips": ["10.0.0.10"]},
            "fixture": "handler",
        });
        let index = filled(&case);
        let asked = message::query(zone, 252, None);
        let transfer = index
            .zone()
            .transfer(&Query::read(&asked).unwrap(), true, 0)
            .unwrap();
        let messages = transfer.map(|bytes| message::read(&bytes));
        let found: Vec<Record> = messages
            .flat_map(|message| message.sections[0].clone())
            .collect();
        let (first, last) = (&found[0], &found[found.len() - 1]);
        assert_eq!((first, first.rtype.as_str()), (last, "SOA"));
        let distinct: BTreeSet<&Record> = found.iter().collect();
        assert_eq!(distinct.len(), found.len() - 1, "only SOA comes twice");

        let expected: BTreeSet<Record> = text(file).lines().map(record).map(weightless).collect();
        let found: BTreeSet<Record> = found.into_iter().map(weightless).collect();
        let missing: Vec<&Record> = expected.difference(&found).collect();
        // SRV of endpoints of an import leads to names of their cluster, as answers do (KEP-1645).
        let missing = missing.iter().filter(|r| !(multicluster && of_endpoint(r)));
        assert_eq!(
            missing.collect::<Vec<_>>(),
            Vec::<&&Record>::new(),
            "{zone}"
        );
        for record in found.difference(&expected) {
            let known = record.rtype == "TXT" || record.rtype == "SRV" || of_endpoint(record);
            assert!(known, "{record} is one too many");
        }
    }
}

/// CoreDNS counts the weights in a transfer otherwise than those in answers.
fn weightless(record: Record) -> Record {
    let mut data: Vec<&str> = record.data.split(' ').collect();
    if record.rtype == "SRV" {
        data[1] = "*";
    }
    let data = data.join(" ");
    Record { data, ..record }
}

/// Whether a record is that of the name of an endpoint, or leads to one.
fn of_endpoint(record: &Record) -> bool {
    let name = match record.rtype.as_str() {
        "SRV" => record.data.split(' ').next_back().unwrap(),
        _ => &record.owner,
    };
    name.split('.').nth(2) != Some("svc")
}
