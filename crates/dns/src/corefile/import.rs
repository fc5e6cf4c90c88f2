//! `import`: lines of snippets and of other files take its place.

use std::collections::BTreeMap;

use super::lexer::{Line, WORDS_MAX, lines};
use super::{Error, Sources};

/// Imports inside imports; CoreDNS has no limit and runs out of memory when a file imports itself.
pub const IMPORTS_MAX: usize = 16;

/// Removes the snippets, `(name) { … }`, and puts what is imported into the place of each `import`.
pub(super) fn expand(file: Vec<Line>, sources: &impl Sources) -> Result<Vec<Line>, Error> {
    let mut expansion = Expansion {
        snippets: BTreeMap::new(),
        words: 0,
        sources,
    };
    expansion.lines(file, 0)
}

struct Expansion<'a, S> {
    snippets: BTreeMap<String, Vec<Line>>,
    words: usize,
    sources: &'a S,
}

impl<S: Sources> Expansion<'_, S> {
    fn lines(&mut self, from: Vec<Line>, depth: usize) -> Result<Vec<Line>, Error> {
        let mut out = Vec::with_capacity(from.len());
        for mut line in from {
            self.count(&line)?;
            if let Some(name) = snippet_name(&line) {
                let body = line.body.take().unwrap_or_default();
                if self.snippets.insert(name.clone(), body).is_some() {
                    let words = format!("there are two snippets ({name})");
                    return Err(line.name().wrong(words));
                }
            } else if line.name().text == "import" {
                let found = self.found(&line, depth)?;
                out.extend(self.lines(found, depth + 1)?);
            } else {
                if let Some(body) = line.body.take() {
                    line.body = Some(self.lines(body, depth)?);
                }
                out.push(line);
            }
        }
        Ok(out)
    }

    fn count(&mut self, line: &Line) -> Result<(), Error> {
        self.words += line.words.len();
        match self.words > WORDS_MAX {
            true => Err(line.name().wrong(format!("more than {WORDS_MAX} words"))),
            false => Ok(()),
        }
    }

    fn found(&self, line: &Line, depth: usize) -> Result<Vec<Line>, Error> {
        let [name, what] = line.words.as_slice() else {
            return Err(line
                .name()
                .wrong("import takes one snippet, file or pattern of files"));
        };
        if depth >= IMPORTS_MAX {
            let words =
                format!("imports are nested more than {IMPORTS_MAX} deep; does one import itself?");
            return Err(name.wrong(words));
        }
        if let Some(snippet) = self.snippets.get(&what.text) {
            return Ok(snippet.clone());
        }
        let files = self.sources.import(&what.text, &what.place.file);
        let files = files.map_err(|error| {
            let snippets: Vec<&str> = self.snippets.keys().map(String::as_str).collect();
            let known = match snippets.is_empty() {
                true => "no snippet stands above".to_string(),
                false => format!("snippets above: {}", snippets.join(", ")),
            };
            what.wrong(format!("cannot import {:?}: {error}; {known}", what.text))
        })?;
        let mut out = Vec::new();
        for (file, text) in files {
            out.extend(lines(&file, &text, self.sources)?);
        }
        Ok(out)
    }
}

fn snippet_name(line: &Line) -> Option<String> {
    let [word] = line.words.as_slice() else {
        return None;
    };
    line.body.as_ref()?;
    let name = word.text.strip_prefix('(')?.strip_suffix(')')?;
    Some(name.to_string())
}
