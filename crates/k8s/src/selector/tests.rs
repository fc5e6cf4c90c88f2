//! Queries, what they match, and what is refused.

use serde_json::json;

use super::*;

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter(|p| !p.is_empty());
    pairs
        .map(|p| p.split_once('=').unwrap())
        .map(|(k, v)| (k.into(), v.into()))
        .collect()
}

#[test]
fn queries_match_as_upstream() {
    for (query, set, expected) in [
        ("", "", true),
        ("", "a=b", true),
        ("a=b", "a=b", true),
        ("a==b", "a=c", false),
        ("a=", "a=", true),
        ("a!=b", "", true),
        ("a!=b", "a=b", false),
        ("a in (b, c)", "a=c", true),
        ("a in (b,c)", "", false),
        ("a notin (b,c)", "", true),
        ("a notin (b)", "a=b", false),
        ("a,!b", "a=1", true),
        ("a,!b", "a=1,b=2", false),
        ("n>5", "n=6", true),
        ("n<5", "n=6", false),
        ("n<5", "n=x", false),
        (
            "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless",
            "app=web",
            true,
        ),
        (
            "!service.kubernetes.io/service-proxy-name",
            "service.kubernetes.io/service-proxy-name=x",
            false,
        ),
        ("in=in", "in=in", true),
        ("in in (in)", "in=in", true),
    ] {
        let selector = Selector::parse(query).unwrap();
        assert_eq!(
            selector.matches(Some(&labels(set))),
            expected,
            "{query} on {set}"
        );
        let again = Selector::parse(&selector.to_string()).unwrap();
        assert_eq!(again, selector, "{query} is shown as {selector}");
    }
}

#[test]
fn wrong_queries_say_what_is_wrong() {
    for (query, words) in [
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        (
            "a b",
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
        ),
        (
            "a in b",
            "unable to parse requirement: found 'b' expected: '('",
        ),
        (
            "a in (b",
            "unable to parse requirement: found '', expected: ',' or ')'",
        ),
        ("a,", "found '', expected: identifier after ','"),
        (
            "=b",
            "found '=', expected: !, identifier, or 'end of string'",
        ),
        (
            "/a",
            "unable to parse requirement: key: Invalid value: \"/a\": prefix part must be non-empty",
        ),
    ] {
        assert_eq!(
            Selector::parse(query).unwrap_err().to_string(),
            words,
            "{query}"
        );
    }
    assert!(Selector::parse("a=-x").is_err());
    assert!(Selector::parse("n>x").is_err());
}

#[test]
fn label_selectors_of_objects() {
    let of = |value| Selector::from_label_selector(&value);
    assert!(!of(json!(null)).unwrap().matches(None));
    assert!(of(json!({})).unwrap().is_everything());
    let both = of(json!({"matchLabels": {"app": "web"}, "matchExpressions": [
        {"key": "tier", "operator": "NotIn", "values": ["db"]}, {"key": "old", "operator": "DoesNotExist"}]}));
    let both = both.unwrap();
    assert_eq!(both.to_string(), "app=web,!old,tier!=db");
    assert!(both.matches_object(&json!({"metadata": {"labels": {"app": "web"}}})));
    assert!(!both.matches_object(&json!({"metadata": {"labels": {"app": "web", "old": ""}}})));
    assert!(of(json!({"matchExpressions": [{"key": "a", "operator": "Like"}]})).is_err());
    assert!(
        of(json!({"matchExpressions": [{"key": "a", "operator": "In", "values": []}]})).is_err()
    );
}

#[test]
fn field_selectors() {
    let selector =
        FieldSelector::parse(r"metadata.name=a\,b,spec.nodeName!=,status.phase==Running").unwrap();
    let with = |node: &'static str| {
        move |path: &str| match path {
            "metadata.name" => "a,b".to_string(),
            "spec.nodeName" => node.to_string(),
            _ => "Running".to_string(),
        }
    };
    assert!(selector.matches(with("n1")));
    assert!(!selector.matches(with("")));
    assert_eq!(selector.required("metadata.name"), Some("a,b"));
    assert_eq!(selector.required("spec.nodeName"), None);
    assert_eq!(
        FieldSelector::parse(&selector.to_string()).unwrap(),
        selector
    );
    assert_eq!(
        FieldSelector::parse("name").unwrap_err().to_string(),
        "invalid selector: 'name'; can't understand 'name'"
    );
    assert!(FieldSelector::parse(r"a=\x").is_err());
    assert!(FieldSelector::parse("").unwrap().is_everything());
}
