//! Other places: for clients (redirects), and for backends (rewrites).

use http::StatusCode;

use super::template::{Scope, Template};
use crate::path::normalize;
use crate::route::Pattern;

/// Requests are sent somewhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Where to.
    pub to: Template,
}

/// Another path for the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// What the path must match; its groups are `$1` to `$9` of the new path.
    pub from: Pattern,
    /// The new path, and perhaps a query.
    pub to: Template,
}

impl Rewrite {
    /// The new path and query; `None` when the path does not match. The query of the request stays, behind that of the
    /// new path, unless the new path ends with `?`. An error when the new path is one that no request may have.
    pub fn apply(&self, scope: &Scope<'_>) -> Option<Result<String, StatusCode>> {
        let captures = self.from.captures(scope.path)?;
        let scope = Scope {
            captures: &captures,
            ..*scope
        };
        let new = self.to.render(&scope);
        let (path, own) = new
            .split_once('?')
            .map_or((&*new, None), |(p, q)| (p, Some(q)));
        let path = format!("/{}", path.strip_prefix('/').unwrap_or(path));
        if normalize(&path).is_err() {
            return Some(Err(StatusCode::BAD_REQUEST));
        }
        let given = scope
            .request_uri
            .split_once('?')
            .map_or("", |(_, query)| query);
        Some(Ok(match (own, given) {
            (None, "") | (Some(""), _) => path,
            (None, query) | (Some(query), "") => format!("{path}?{query}"),
            (Some(own), given) => format!("{path}?{own}&{given}"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;

    fn rewritten(from: &str, to: &str, uri: &str) -> Option<Result<String, StatusCode>> {
        let rewrite = Rewrite {
            from: Pattern::new(from, true).unwrap(),
            to: Template::parse(to).unwrap(),
        };
        rewrite.apply(&Scope {
            http_host: "a.com",
            host: "a.com",
            scheme: "http",
            request_uri: uri,
            path: uri.split('?').next().unwrap(),
            remote_addr: "203.0.113.2",
            method: &Method::GET,
            headers: &HeaderMap::new(),
            captures: &[],
        })
    }

    #[test]
    fn paths_are_rewritten_and_queries_stay() {
        let rest = "/app(/|$)(.*)";
        let cases = [
            (rest, "/$2", "/app/x/y?q=1", "/x/y?q=1"),
            (rest, "/$2", "/app", "/"),
            (rest, "$2", "/app/x", "/x"),
            (rest, "/api?kind=$2", "/app/x?q=1", "/api?kind=x&q=1"),
            (rest, "/api?", "/app/x?q=1", "/api"),
            (rest, "/$2", "/app/%2Fx", "/%2Fx"),
            ("", "/new", "/old/x?q=1", "/new?q=1"),
        ];
        for (from, to, uri, expected) in cases {
            assert_eq!(
                rewritten(from, to, uri),
                Some(Ok(expected.into())),
                "{from} {to} {uri}"
            );
        }
        assert_eq!(rewritten(rest, "/$2", "/other"), None);
    }

    #[test]
    fn no_rewrite_makes_a_path_that_no_request_may_have() {
        assert_eq!(
            rewritten("/a/(.*)", "/b/.$1", "/a/./x").unwrap(),
            Err(StatusCode::BAD_REQUEST)
        );
        assert_eq!(
            rewritten("/a/(.*)", "/.$1", "/a/.").unwrap(),
            Err(StatusCode::BAD_REQUEST)
        );
    }
}
