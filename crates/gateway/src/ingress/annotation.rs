//! Annotations of Ingresses. Three of ingress-nginx are carried out; every other one of its prefix, or of ours, is told
//! as a Problem: an annotation that is passed over in silence is a setting that somebody believes to be in force.

use std::collections::BTreeMap;

/// Prefix of the annotations of ingress-nginx.
const NGINX: &str = "nginx.ingress.kubernetes.io/";
/// Prefix of our own; there are none for Ingresses.
const OURS: &str = "portolan.dev/";

/// What annotations say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// `ssl-redirect`: hosts with a certificate send requests without TLS to where there is TLS.
    pub(super) tls_redirect: bool,
    /// `force-ssl-redirect`: all hosts do, because somebody in front ends TLS.
    pub(super) force_tls_redirect: bool,
    /// `use-regex`: paths of type ImplementationSpecific are regular expressions.
    pub(super) regex: bool,
}

/// Reads the annotations of an Ingress; every Problem with its reason.
pub(super) fn settings(
    annotations: Option<&BTreeMap<String, String>>,
) -> (Settings, Vec<(&'static str, String)>) {
    let mut settings = Settings {
        tls_redirect: true,
        force_tls_redirect: false,
        regex: false,
    };
    let mut problems = Vec::new();
    let mut unknown = Vec::new();
    for (key, value) in annotations.into_iter().flatten() {
        let name = match (key.strip_prefix(NGINX), key.starts_with(OURS)) {
            (Some(name), _) => name,
            (None, true) => "",
            (None, false) => continue,
        };
        let flag = match name {
            "ssl-redirect" => &mut settings.tls_redirect,
            "force-ssl-redirect" => &mut settings.force_tls_redirect,
            "use-regex" => &mut settings.regex,
            name if name.ends_with("-snippet") => {
                problems.push(("SnippetRefused", refusal(key)));
                continue;
            }
            _ => {
                unknown.push(key.as_str());
                continue;
            }
        };
        match value.as_str() {
            "true" => *flag = true,
            "false" => *flag = false,
            _ => problems.push((
                "InvalidAnnotation",
                format!("Annotation {key} is {value:?}, and must be \"true\" or \"false\"; it is left out."),
            )),
        }
    }
    if !unknown.is_empty() {
        problems.push((
            "AnnotationNotSupported",
            format!(
                "These annotations are not carried out: {}. Requests are served as if they were not there.",
                unknown.join(", ")
            ),
        ));
    }
    (settings, problems)
}

fn refusal(key: &str) -> String {
    format!(
        "Annotation {key} is refused: it is text for the configuration of nginx, which the gateway does not have, and it \
         gave whoever may write an Ingress all that nginx may do. Requests are served as if it were not there."
    )
}
