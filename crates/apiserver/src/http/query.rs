//! The query string of a request.

use std::str::FromStr;

use crate::status::{Failure, bad_request};

/// Decoded parameters in the order of the URL.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses what stands after `?`.
    pub fn parse(text: &str) -> Query {
        Query(
            url::form_urlencoded::parse(text.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// The first value of a parameter; empty when absent.
    pub fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A flag as Go reads it: absent, `0` and `false` are false, everything else is true.
    pub fn flag(&self, name: &str) -> bool {
        self.optional_flag(name).unwrap_or(false)
    }

    /// A flag that may be absent.
    pub fn optional_flag(&self, name: &str) -> Option<bool> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        Some(!matches!(
            value.to_ascii_lowercase().as_str(),
            "0" | "false"
        ))
    }

    /// A number; absent or empty is `None`.
    pub fn number<N: FromStr>(&self, name: &str) -> Result<Option<N>, Failure> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: invalid syntax"
                ))
            }),
        }
    }

    /// Whether nothing is to be stored: `dryRun=All`.
    pub fn dry_run(&self) -> Result<bool, Failure> {
        let values: Vec<&str> = self
            .all("dryRun")
            .filter(|value| !value.is_empty())
            .collect();
        match values.as_slice() {
            [] => Ok(false),
            ["All"] => Ok(true),
            _ => Err(bad_request(format!(
                "Invalid value: {values:?}: dryRun supports only All"
            ))),
        }
    }
}
