//! Who lets in: a file of passwords, or a service that is asked.

use http::{HeaderName, Method};

use super::{Reader, Settings};
use crate::policy::Judge;
use crate::problem::ObjectName;

/// Headers that `auth-response-headers` may name; further ones are a Problem.
const PASSED_MAX: usize = 32;

/// A file of passwords that an Ingress asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ingress) struct Wanted {
    /// What browsers show.
    pub(in crate::ingress) realm: String,
    /// The Secret.
    pub(in crate::ingress) secret: ObjectName,
    /// Whether its keys are users, instead of one key `auth` with a file.
    pub(in crate::ingress) is_map: bool,
}

pub(super) fn read(reader: &mut Reader<'_>, settings: &mut Settings, of: &ObjectName) {
    settings.login = login(reader, of);
    settings.policy.judge = judge(reader);
    if reader.has("auth-tls-secret") && reader.text("auth-tls-verify-client") != Some("off") {
        reader.unsafe_to_serve(
            "auth-tls-secret",
            "Certificates of clients are not asked for; use auth-url with a service that knows the clients.",
        );
    }
}

fn login(reader: &mut Reader<'_>, of: &ObjectName) -> Option<Wanted> {
    match reader.text("auth-type")? {
        "basic" => {}
        "digest" => {
            reader.unsafe_to_serve("auth-type", "Digest is not spoken; use \"basic\" over TLS.");
            return None;
        }
        _ => {
            reader.unsafe_to_serve("auth-type", "It must be \"basic\".");
            return None;
        }
    }
    let Some(secret) = reader.text("auth-secret") else {
        reader.unsafe_to_serve(
            "auth-type",
            "It needs auth-secret, the name of a Secret with a file of passwords.",
        );
        return None;
    };
    let (namespace, name) = secret.split_once('/').unwrap_or((&of.namespace, secret));
    if *namespace != *of.namespace {
        reader.unsafe_to_serve(
            "auth-secret",
            "A Secret of another namespace is not read, since whoever writes the Ingress may not be allowed to.",
        );
        return None;
    }
    let is_map = match reader.text("auth-secret-type") {
        None | Some("auth-file") => false,
        Some("auth-map") => true,
        Some(_) => {
            reader.unsafe_to_serve(
                "auth-secret-type",
                "It must be \"auth-file\" or \"auth-map\".",
            );
            return None;
        }
    };
    Some(Wanted {
        realm: reader
            .text("auth-realm")
            .unwrap_or("Authentication Required")
            .to_owned(),
        secret: ObjectName::new(namespace, name),
        is_map,
    })
}

fn judge(reader: &mut Reader<'_>) -> Option<Judge> {
    let text = reader.text("auth-url")?;
    if !text.starts_with("http://") {
        reader.unsafe_to_serve(
            "auth-url",
            "It must begin with http://: the service is asked without TLS, within the cluster.",
        );
        return None;
    }
    let Some(url) = reader.template("auth-url") else {
        reader.unsafe_to_serve(
            "auth-url",
            "It has a variable that the gateway does not know.",
        );
        return None;
    };
    let method = match reader
        .text("auth-method")
        .map(|text| Method::from_bytes(text.as_bytes()))
    {
        None => Some(Method::GET),
        Some(Ok(method)) => Some(method),
        Some(Err(_)) => {
            reader.wrong(
                "auth-method",
                "It must be a method such as GET; GET is taken.",
            );
            Some(Method::GET)
        }
    };
    let names = reader.text("auth-response-headers").unwrap_or_default();
    let mut passed = Vec::new();
    for name in names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        match HeaderName::try_from(name) {
            Ok(name) if passed.len() < PASSED_MAX => passed.push(name),
            Ok(_) => reader.wrong(
                "auth-response-headers",
                "It has more than 32 names; the further ones are left out.",
            ),
            Err(_) => reader.wrong(
                "auth-response-headers",
                &format!("{name:?} is no name of a header; it is left out."),
            ),
        }
    }
    Some(Judge {
        url,
        method,
        sign_in: reader.template("auth-signin"),
        return_parameter: reader
            .text("auth-signin-redirect-param")
            .unwrap_or("rd")
            .to_owned(),
        return_to: reader.template("auth-request-redirect"),
        passed,
    })
}
