//! Redirects, rewrites, expressions, and further hosts.

use http::StatusCode;

use super::{Reader, Settings};
use crate::host::Host;
use crate::policy::{Redirect, Template};

/// Names of `server-alias` that are read; further ones are a Problem. People have two or three.
const ALIASES_MAX: usize = 32;

pub(super) fn read(reader: &mut Reader<'_>, settings: &mut Settings) {
    settings.tls_redirect = reader.flag("ssl-redirect").unwrap_or(true);
    settings.force_tls_redirect = reader.flag("force-ssl-redirect").unwrap_or(false);
    settings.redirect_status =
        reader.redirect_status("http-redirect-code", StatusCode::PERMANENT_REDIRECT);
    settings.regex = reader.flag("use-regex").unwrap_or(false);
    if settings.regex && !reader.is_compatible {
        reader.differs(
            "use-regex",
            "Expressions are for whole paths of type ImplementationSpecific, case matters, and other Ingresses of the host \
             keep their paths; --ingress-nginx-compatible brings back what ingress-nginx did.",
        );
    }
    settings.rewrite = reader.template("rewrite-target");
    if settings.rewrite.is_some() && !settings.regex && !reader.is_compatible {
        reader.differs(
            "rewrite-target",
            "Without use-regex, paths are no expressions, and all of a path is replaced; --ingress-nginx-compatible brings \
             back what ingress-nginx did.",
        );
    }
    settings.www = reader.flag("from-to-www-redirect").unwrap_or(false);
    settings.policy.redirect = redirect(reader);
    settings.app_root = app_root(reader);
    settings.aliases = aliases(reader);
}

/// `temporal-redirect` comes before `permanent-redirect`, as with ingress-nginx.
fn redirect(reader: &mut Reader<'_>) -> Option<Redirect> {
    let kinds = [
        (
            "temporal-redirect",
            "temporal-redirect-code",
            StatusCode::FOUND,
        ),
        (
            "permanent-redirect",
            "permanent-redirect-code",
            StatusCode::MOVED_PERMANENTLY,
        ),
    ];
    let mut found = None;
    for (name, code, default) in kinds {
        let status = reader.redirect_status(code, default);
        let Some(to) = reader.template(name) else {
            continue;
        };
        let beginning = to.beginning();
        let is_place = beginning.starts_with("http://")
            || beginning.starts_with("https://")
            || beginning.starts_with('/')
            || reader
                .text(name)
                .is_some_and(|text| text.starts_with("$scheme://"));
        if is_place {
            found = found.or(Some(Redirect { status, to }));
        } else {
            reader.wrong(
                name,
                "It must begin with http://, https://, $scheme:// or /; it is left out.",
            );
        }
    }
    found
}

fn app_root(reader: &mut Reader<'_>) -> Option<Template> {
    let text = reader.text("app-root")?;
    let fine = text.starts_with('/') && text != "/" && !text.starts_with("//");
    if !fine {
        reader.wrong(
            "app-root",
            "It must be a path such as /app; it is left out.",
        );
        return None;
    }
    reader.template("app-root")
}

fn aliases(reader: &mut Reader<'_>) -> Vec<Host> {
    let text = reader.text("server-alias").unwrap_or_default();
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    let mut hosts = Vec::new();
    for item in items {
        match Host::parse(item) {
            Ok(host) if hosts.len() < ALIASES_MAX => hosts.push(host),
            Ok(_) => reader.wrong(
                "server-alias",
                "It has more than 32 names; the further ones are left out.",
            ),
            Err(error) => {
                let words = format!(
                    "It has {item:?}: {error}; that is left out. Expressions (~) cannot be hosts."
                );
                reader.wrong("server-alias", &words);
            }
        }
    }
    hosts
}
