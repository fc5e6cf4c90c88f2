//! The forms of names: DNS labels and subdomains, qualified names, port names, keys, variables.
//! Each check gives the messages of what is wrong; none if nothing is.

/// Longest DNS label (RFC 1123, section 2.1); longer ones are refused.
const LABEL_MAX: usize = 63;
/// Longest DNS name (RFC 1123, section 2.1); longer ones are refused.
const SUBDOMAIN_MAX: usize = 253;
/// Longest service name (RFC 6335, section 5.1); longer ones are refused.
const PORT_NAME_MAX: usize = 15;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// A lower case DNS label, e.g. the name of a container or a namespace (RFC 1123).
pub fn label(value: &str) -> Vec<String> {
    let text = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                and end with an alphanumeric character";
    form(value, LABEL_MAX, is_label(value), || {
        with_examples(text, LABEL, &["my-name", "123-abc"])
    })
}

/// A lower case DNS label that starts with a letter, e.g. the name of a Service (RFC 1035).
pub fn label_1035(value: &str) -> Vec<String> {
    let text = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                character, and end with an alphanumeric character";
    let fits = is_label(value) && value.starts_with(|first: char| first.is_ascii_lowercase());
    form(value, LABEL_MAX, fits, || {
        with_examples(text, LABEL_1035, &["my-name", "abc-123"])
    })
}

/// Lower case DNS labels with dots between them, the form of most names (RFC 1123).
pub fn subdomain(value: &str) -> Vec<String> {
    let text = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                must start and end with an alphanumeric character";
    let pattern = format!("{LABEL}(\\.{LABEL})*");
    form(value, SUBDOMAIN_MAX, value.split('.').all(is_label), || {
        with_examples(text, &pattern, &["example.com"])
    })
}

/// The same below `*.`, which stands for one more label.
pub fn wildcard(value: &str) -> Vec<String> {
    let text = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
                consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
    let pattern = format!("\\*\\.{LABEL}(\\.{LABEL})*");
    let fits = value
        .strip_prefix("*.")
        .is_some_and(|name| name.split('.').all(is_label));
    form(value, SUBDOMAIN_MAX, fits, || {
        with_examples(text, &pattern, &["*.example.com"])
    })
}

/// A name that can stand in a path of the API.
pub fn path_segment(value: &str) -> Vec<String> {
    if matches!(value, "." | "..") {
        return vec![format!("may not be '{value}'")];
    }
    let parts = ['/', '%'].into_iter().filter(|part| value.contains(*part));
    parts
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// A name with an optional prefix, the form of label and annotation keys: `example.com/MyName`.
pub fn qualified(value: &str) -> Vec<String> {
    let text = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
                character";
    let examples = with_examples(text, QUALIFIED, &["MyName", "my.name", "123-abc"]);
    let mut messages = Vec::new();
    let name = match value.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                messages.push("prefix part must be non-empty".to_owned());
            } else {
                messages.extend(
                    subdomain(prefix)
                        .into_iter()
                        .map(|message| format!("prefix part {message}")),
                );
            }
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {examples} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        messages.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        messages.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !is_word(name) {
        messages.push(format!("name part {examples}"));
    }
    messages
}

/// The value of a label.
pub fn label_value(value: &str) -> Vec<String> {
    let text = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
                must start and end with an alphanumeric character";
    let pattern = format!("({QUALIFIED})?");
    let fits = value.is_empty() || is_word(value);
    form(value, LABEL_MAX, fits, || {
        with_examples(text, &pattern, &["MyValue", "my_value", "12345"])
    })
}

/// The name of a container port, also in `targetPort` and probes.
pub fn port_name(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.len() > PORT_NAME_MAX {
        messages.push(too_long(PORT_NAME_MAX));
    }
    if value.is_empty()
        || !value
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    {
        messages.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        messages.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        messages.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        messages.push("must not begin or end with a hyphen".to_owned());
    }
    messages
}

/// A key of a ConfigMap or Secret.
pub fn key(value: &str) -> Vec<String> {
    let text = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
    let fits = !value.is_empty()
        && value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let examples = ["key.name", "KEY_NAME", "key-name"];
    let mut messages = form(value, SUBDOMAIN_MAX, fits, || {
        with_examples(text, "[-._a-zA-Z0-9]+", &examples)
    });
    match value {
        "." => messages.push("must not be '.'".to_owned()),
        ".." => messages.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => messages.push("must not start with '..'".to_owned()),
        _ => {}
    }
    messages
}

/// The name of an environment variable.
pub fn variable(value: &str) -> Vec<String> {
    if !value.is_empty()
        && value
            .bytes()
            .all(|byte| matches!(byte, 0x20..=0x7e) && byte != b'=')
    {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

fn is_label(value: &str) -> bool {
    let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !value.is_empty()
        && value.bytes().all(inner)
        && !value.starts_with('-')
        && !value.ends_with('-')
}

fn is_word(value: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let outer = |end: Option<u8>| end.is_some_and(|byte| byte.is_ascii_alphanumeric());
    value.bytes().all(inner) && outer(value.bytes().next()) && outer(value.bytes().last())
}

fn form(
    value: &str,
    length_max: usize,
    fits: bool,
    message: impl FnOnce() -> String,
) -> Vec<String> {
    let long = (value.len() > length_max).then(|| too_long(length_max));
    let form = (!fits).then(message);
    long.into_iter().chain(form).collect()
}

fn too_long(length_max: usize) -> String {
    format!("must be no more than {length_max} characters")
}

/// `TEXT (e.g. 'a',  or 'b', regex used for validation is 'PATTERN')`.
fn with_examples(text: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples
        .iter()
        .map(|example| format!("'{example}', "))
        .collect();
    format!(
        "{text} (e.g. {}regex used for validation is '{pattern}')",
        examples.join(" or ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_are_those_people_know() {
        assert_eq!(
            label("My_Name"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
              end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(
            subdomain("a..b"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
              start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            label(&"a".repeat(64)),
            ["must be no more than 63 characters"]
        );
    }

    #[test]
    fn good_names_pass() {
        for name in ["a", "a-b", "0a9"] {
            assert!(label(name).is_empty(), "{name}");
        }
        assert!(label_1035("web-1").is_empty());
        assert!(!label_1035("1-web").is_empty());
        assert!(subdomain("a.b-c.d").is_empty());
        for name in [
            "app",
            "app.kubernetes.io/name",
            "A_b.c",
            "example.com/MyName",
        ] {
            assert!(qualified(name).is_empty(), "{name}");
        }
        for name in ["", "/x", "x/", "a/b/c", "-a", "a-", "UPPER.com/x", "a b"] {
            assert!(!qualified(name).is_empty(), "{name}");
        }
        assert!(label_value("").is_empty());
        assert!(!label_value("-").is_empty());
        assert!(port_name("http-80").is_empty());
        assert!(variable("MY.VAR-1").is_empty());
        assert!(!variable("A=B").is_empty());
        assert!(key(".env").is_empty());
        assert_eq!(key("..data"), ["must not start with '..'"]);
    }

    #[test]
    fn port_names_say_all_that_is_wrong() {
        assert_eq!(port_name("80"), ["must contain at least one letter (a-z)"]);
        assert_eq!(port_name("a--b"), ["must not contain consecutive hyphens"]);
        assert_eq!(port_name("-a"), ["must not begin or end with a hyphen"]);
        assert_eq!(
            port_name("a-very-long-port-name"),
            ["must be no more than 15 characters"]
        );
    }
}
