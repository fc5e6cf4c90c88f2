//! kube-proxy's flags that say what its file can say as well: one table, of which clap gets its arguments.
//!
//! With `--config` the file alone counts, as with kube-proxy; but what concerns this very process (its name for the node,
//! its log) is taken from the command line nevertheless.

mod table;

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use super::Config;
use super::text::written;
use table::{FLAGS, dead};

/// One flag.
struct Flag {
    name: &'static str,
    /// What its value is; empty for one that needs none because it is true or false.
    value: &'static str,
    /// Whether it counts although there is a file.
    over_file: bool,
    help: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
}

const fn flag(
    name: &'static str,
    value: &'static str,
    help: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
) -> Flag {
    Flag {
        name,
        value,
        over_file: false,
        help,
        set,
    }
}

/// A flag that counts although there is a file.
const fn always(
    name: &'static str,
    value: &'static str,
    help: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
) -> Flag {
    Flag {
        over_file: true,
        ..flag(name, value, help, set)
    }
}

/// Other names, as Portolan's nftables mode had them first.
const ALIASES: [(&str, &str); 3] = [
    ("hostname-override", "node-name"),
    ("nftables-min-sync-period", "min-sync-period"),
    ("nftables-sync-period", "sync-period"),
];

/// A shortest time that is longer than the longest makes no sense.
pub(super) fn in_order(min: Duration, max: Duration) -> Result<(), String> {
    match min <= max {
        true => Ok(()),
        false => Err(format!(
            "{} is shorter than minSyncPeriod {}",
            written(max),
            written(min)
        )),
    }
}

/// The flags that were given, in the order of the table.
#[derive(Clone, Debug, Default)]
pub struct Given(Vec<(&'static str, Vec<String>)>);

impl Given {
    /// Lays them over the defaults.
    pub(in crate::cmd::proxy) fn config(&self) -> Result<Config, String> {
        let mut config = Config::default();
        self.apply(&mut config, |_| true)?;
        let Config {
            iptables,
            ipvs,
            nftables,
            ..
        } = &config;
        for (name, min, max) in [
            ("iptables", iptables.min_sync_period, iptables.sync_period),
            ("ipvs", ipvs.min_sync_period, ipvs.sync_period),
            ("nftables", nftables.min_sync_period, nftables.sync_period),
        ] {
            in_order(min, max).map_err(|words| format!("--{name}-sync-period {words}"))?;
        }
        Ok(config)
    }

    /// Lays those over a file that count nevertheless; returns the names of the others, which have no effect.
    pub(in crate::cmd::proxy) fn over(
        &self,
        config: &mut Config,
    ) -> Result<Vec<&'static str>, String> {
        self.apply(config, |flag| flag.over_file)?;
        let ignored = self.flags().filter(|(flag, _)| !flag.over_file);
        Ok(ignored.map(|(flag, _)| flag.name).collect())
    }

    /// The names of those that never have an effect.
    pub(in crate::cmd::proxy) fn dead(&self) -> Vec<&'static str> {
        let dead = self
            .flags()
            .filter(|(flag, _)| std::ptr::fn_addr_eq(flag.set, dead as fn(&mut Config, &str) -> _));
        dead.map(|(flag, _)| flag.name).collect()
    }

    fn apply(&self, config: &mut Config, which: impl Fn(&Flag) -> bool) -> Result<(), String> {
        for (flag, values) in self.flags().filter(|(flag, _)| which(flag)) {
            for value in values {
                (flag.set)(config, value).map_err(|words| format!("--{}: {words}", flag.name))?;
            }
        }
        Ok(())
    }

    fn flags(&self) -> impl Iterator<Item = (&'static Flag, &[String])> {
        self.0.iter().filter_map(|(name, values)| {
            let flag = FLAGS.iter().find(|flag| flag.name == *name)?;
            Some((flag, values.as_slice()))
        })
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let values = |flag: &Flag| Some(matches.get_many::<String>(flag.name)?.cloned().collect());
        let given = FLAGS
            .iter()
            .filter_map(|flag| Some((flag.name, values(flag)?)));
        Ok(Given(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Given {
    fn augment_args(command: Command) -> Command {
        let command = command.next_help_heading("What --config FILE can say as well");
        let command = FLAGS
            .iter()
            .fold(command, |command, flag| command.arg(arg(flag)));
        command.next_help_heading(None::<&str>)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn arg(flag: &Flag) -> Arg {
    let alias = ALIASES.iter().find(|(name, _)| *name == flag.name);
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .help(flag.help)
        .action(ArgAction::Append)
        .visible_aliases(alias.map(|(_, alias)| *alias));
    let arg = match flag.name {
        "v" => arg.short('v'),
        _ => arg,
    };
    match flag.value {
        "" => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("true|false"),
        value => arg.num_args(1).allow_hyphen_values(true).value_name(value),
    }
}

#[cfg(test)]
mod tests;
