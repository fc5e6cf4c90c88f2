//! The search path of a pod, walked here instead of there (autopath).
//!
//! A pod that looks for `example.com` asks for `example.com.NAMESPACE.svc.ZONE` first, because of its search path, and
//! then four more names, each for A and AAAA. Whoever knows the path can try them all at the first question. Which name
//! answers depends on the names alone and never on the type, so that A and AAAA agree.

use crate::wire::{Name, labels};

/// The names that the client would try, in its order, after it has asked for `name`: the first element of its search
/// path is taken away, and each element put in its place, and at last none. `None` when `name` is not below that first
/// element, which means that nobody searches.
pub fn candidates(name: &[u8], search: &[Name]) -> Option<Vec<Name>> {
    let first = search.first()?;
    if !is_first_of(name, search) {
        return None;
    }
    let base = &name[..name.len() - first.as_wire().len()];
    if base.is_empty() {
        return None;
    }
    let elements = search.iter().map(Name::as_wire).chain([&[0][..]]);
    let joined = |element: &[u8]| Name::from_wire(&[base, element].concat());
    let mut all: Vec<Name> = Vec::with_capacity(search.len() + 1);
    for candidate in elements.filter_map(joined) {
        if !all.contains(&candidate) {
            all.push(candidate);
        }
    }
    Some(all)
}

/// Whether `name` is the first element of a search path, or below it.
pub fn is_first_of(name: &[u8], search: &[Name]) -> bool {
    let Some(first) = search.first().map(Name::as_wire) else {
        return false;
    };
    let Some(begin) = name.len().checked_sub(first.len()) else {
        return false;
    };
    let mut at = 0;
    let mut boundary = begin == 0;
    for label in labels(name) {
        at += label.len() + 1;
        boundary |= at == begin;
    }
    boundary && name[begin..].eq_ignore_ascii_case(first)
}
