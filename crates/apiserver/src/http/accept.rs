//! What the client wants to get: JSON or YAML; the objects, tables of them, or only their metadata.

use crate::status::{Failure, not_acceptable};

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
}

/// As what objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As they are.
    Object,
    /// meta.k8s.io/v1 Table.
    Table,
    /// meta.k8s.io/v1 PartialObjectMetadata(List).
    Metadata,
}

/// One entry of an Accept header: media type and parameters, in lower case.
#[derive(Clone, Debug)]
pub struct Media {
    /// E.g. `application/json`.
    pub kind: String,
    params: Vec<(String, String)>,
}

impl Media {
    /// A parameter, e.g. `as`; empty when absent.
    pub fn param(&self, name: &str) -> &str {
        self.params
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }
}

/// The entries of an Accept header in the client's order; no header accepts everything.
pub fn parse(header: &str) -> Vec<Media> {
    let header = if header.trim().is_empty() {
        "*/*"
    } else {
        header
    };
    let media = |text: &str| {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let params = parts
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| {
                (
                    key.trim().to_owned(),
                    value.trim().trim_matches('"').to_owned(),
                )
            })
            .collect();
        Media { kind, params }
    };
    header
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(media)
        .collect()
}

/// How to answer with objects: the first entry that can be served.
pub fn negotiate(header: &str) -> Result<(Format, Shape), Failure> {
    let serve = |media: &Media| {
        let format = match media.kind.as_str() {
            "application/json" | "application/*" | "*/*" => Format::Json,
            "application/yaml" => Format::Yaml,
            _ => return None,
        };
        let ours = media.param("g") == "meta.k8s.io" && media.param("v") == "v1";
        let shape = match media.param("as") {
            "" => Shape::Object,
            "Table" if ours => Shape::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" if ours => Shape::Metadata,
            _ => return None,
        };
        Some((format, shape))
    };
    parse(header)
        .iter()
        .find_map(serve)
        .ok_or_else(not_acceptable)
}
