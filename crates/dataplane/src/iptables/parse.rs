//! Rules out of what `iptables-save` shows. Only what we write ourselves is understood; nothing here panics.

use ipnet::IpNet;
use portolan_model::Protocol;

use super::name::{Chain, Role};
use super::rule::{CHANCE_ONE, Match, Rule, State, Target};

/// One line `-A CHAIN …`: the name of the chain, and the rule if it is one that we could have written.
pub(crate) fn line(text: &str) -> Option<(String, Option<Rule>)> {
    let words = words(text)?;
    match words.split_first_chunk() {
        Some(([dash, chain], rest)) if dash == "-A" => Some((chain.clone(), rule(rest))),
        _ => None,
    }
}

/// Splits as a shell does: spaces separate, quotes keep together, a backslash in quotes takes the next letter as it is.
fn words(text: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    let mut in_quotes = false;
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                in_quotes = !in_quotes;
                word.get_or_insert_default();
            }
            '\\' if in_quotes => word.get_or_insert_default().push(letters.next()?),
            ' ' if !in_quotes => all.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    all.extend(word);
    (!in_quotes).then_some(all)
}

fn rule(words: &[String]) -> Option<Rule> {
    let mut reader = Reader { rest: words };
    let mut matches = Vec::new();
    let mut protocol = None;
    loop {
        let not = reader.take("!");
        let option = reader.next()?;
        let one = match option {
            "-s" => Match::Source {
                not,
                range: reader.read::<IpNet>()?,
            },
            "-d" if !not => Match::Destination(reader.read()?),
            "-i" => Match::Interface {
                not,
                name: reader.next()?.into(),
            },
            "-p" if !not => {
                let of = reader.read::<Protocol>()?;
                protocol = Some(of);
                Match::Protocol(of)
            }
            "-m" if !not => match reader.next()? {
                // `-m tcp` stands without an option in rules with a port for DNAT.
                "tcp" | "udp" | "sctp" if reader.rest.first()? != "--dport" => continue,
                "tcp" | "udp" | "sctp" => {
                    reader.expect("--dport")?;
                    Match::Port(protocol?, reader.read()?)
                }
                name => reader.module(name)?,
            },
            "-j" | "-g" if !not => {
                let target = reader.target(option == "-g")?;
                return reader.rest.is_empty().then(|| Rule::new(matches, target));
            }
            _ => return None,
        };
        matches.push(one);
    }
}

struct Reader<'a> {
    rest: &'a [String],
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.rest.first().is_some_and(|first| first == word);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn expect(&mut self, word: &str) -> Option<()> {
        self.take(word).then_some(())
    }

    fn read<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.next()?.parse().ok()
    }

    fn module(&mut self, name: &str) -> Option<Match> {
        match name {
            "comment" => {
                self.expect("--comment")?;
                Some(Match::Comment(self.next()?.into()))
            }
            "addrtype" => {
                let not = self.take("!");
                self.expect("--src-type")?;
                self.expect("LOCAL")?;
                Some(Match::LocalSource { not })
            }
            "conntrack" => {
                let not = self.take("!");
                self.expect("--ctstate")?;
                let state = match (not, self.next()?) {
                    (false, "NEW") => State::New,
                    (true, "DNAT") => State::NotDnat,
                    (false, "INVALID") => State::Invalid,
                    (false, "RELATED,ESTABLISHED") => State::Known,
                    _ => return None,
                };
                Some(Match::State(state))
            }
            "mark" => {
                let not = self.take("!");
                self.expect("--mark")?;
                let (mark, mask) = marks(self.next()?)?;
                (mark == mask).then_some(Match::Marked { not, mark })
            }
            "recent" => self.recent(),
            "statistic" => self.statistic(),
            _ => None,
        }
    }

    fn recent(&mut self) -> Option<Match> {
        let seconds = match self.next()? {
            "--set" => None,
            "--rcheck" => {
                self.expect("--seconds")?;
                let seconds = self.read()?;
                self.expect("--reap")?;
                Some(seconds)
            }
            _ => return None,
        };
        self.expect("--name")?;
        let Chain::Service(Role::Endpoint, endpoint) = Chain::named(self.next()?)? else {
            return None;
        };
        self.expect("--mask")?;
        let whole = ["255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"];
        whole.contains(&self.next()?).then_some(())?;
        self.expect("--rsource")?;
        Some(match seconds {
            None => Match::Remember(endpoint),
            Some(seconds) => Match::Remembered { endpoint, seconds },
        })
    }

    fn statistic(&mut self) -> Option<Match> {
        self.expect("--mode")?;
        match self.next()? {
            "random" => {
                self.expect("--probability")?;
                let chance = (self.read::<f64>()? * CHANCE_ONE as f64).round();
                (0.0..=CHANCE_ONE as f64)
                    .contains(&chance)
                    .then_some(Match::Chance(chance as u32))
            }
            "nth" => {
                self.expect("--every")?;
                let every = self.read()?;
                self.expect("--packet")?;
                self.expect("0")?;
                Some(Match::Turn(every))
            }
            _ => None,
        }
    }

    fn target(&mut self, goto: bool) -> Option<Target> {
        let name = self.next()?;
        if let Some(chain) = Chain::named(name) {
            return Some(match goto {
                true => Target::Goto(chain),
                false => Target::Jump(chain),
            });
        }
        Some(match name {
            _ if goto => return None,
            "RETURN" => Target::Return,
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "REJECT" => {
                self.expect("--reject-with")?;
                match self.next()? {
                    "tcp-reset" => Target::Reset,
                    "icmp-port-unreachable" | "icmp6-port-unreachable" => Target::Unreachable,
                    _ => return None,
                }
            }
            "MARK" => {
                self.expect("--set-xmark")?;
                match marks(self.next()?)? {
                    (mark, 0) => Target::Unmark(mark),
                    (mark, mask) if mark == mask => Target::Mark(mark),
                    _ => return None,
                }
            }
            "MASQUERADE" => {
                self.expect("--random-fully")?;
                Target::Masquerade
            }
            "DNAT" => {
                self.expect("--to-destination")?;
                Target::Dnat(self.read()?)
            }
            _ => return None,
        })
    }
}

/// A mark and its mask, as in `0x4000/0x4000`.
fn marks(text: &str) -> Option<(u32, u32)> {
    let (mark, mask) = text.split_once('/')?;
    let read = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    Some((read(mark)?, read(mask)?))
}
