//! The command line of ejection.

use std::time::Duration;

use anyhow::ensure;
use clap::ArgAction;
use portolan_model::health::Config;

use crate::cmd::proxy::flags::duration;

/// `--health-…`.
#[derive(clap::Args)]
pub struct HealthArgs {
    /// Whether endpoints that do not answer leave rotation until they do.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    health_ejection: bool,
    /// Of the ready endpoints of a Service port, so many percent may be out; one may always be, the last one never.
    #[arg(long, default_value_t = Config::default().percent_max)]
    health_ejected_percent_max: u8,
    /// How long an endpoint may take to answer a check.
    #[arg(long, default_value = "1s", value_parser = duration)]
    health_patience: Duration,
    /// Checks of endpoints that are begun in one second at most.
    #[arg(long, default_value_t = Config::default().checks_per_second)]
    health_checks_per_second: u32,
    /// An endpoint that is out is checked again after this time, then after twice as long, and so on.
    #[arg(long, default_value = "500ms", value_parser = duration)]
    health_backoff: Duration,
    /// The longest time between two checks of an endpoint that is out.
    #[arg(long, default_value = "10s", value_parser = duration)]
    health_backoff_max: Duration,
}

/// Checks that a machine can begin in a second without anybody noticing.
const CHECKS_MAX: u32 = 10_000;
/// Impatience that a network with a busy machine in it can bear.
const PATIENCE_MIN: Duration = Duration::from_millis(50);

impl HealthArgs {
    /// Checks what was given; `None` when nobody is to be ejected.
    pub fn config(self) -> anyhow::Result<Option<Config>> {
        ensure!(
            self.health_ejected_percent_max <= 100,
            "--health-ejected-percent-max {} is more than all",
            self.health_ejected_percent_max
        );
        ensure!(
            self.health_patience >= PATIENCE_MIN,
            "--health-patience {:?} is less than {PATIENCE_MIN:?}",
            self.health_patience
        );
        // A trial takes five.
        ensure!(
            (5..=CHECKS_MAX).contains(&self.health_checks_per_second),
            "--health-checks-per-second {} is not in 5 to {CHECKS_MAX}",
            self.health_checks_per_second
        );
        ensure!(
            self.health_backoff >= PATIENCE_MIN && self.health_backoff_max >= self.health_backoff,
            "--health-backoff {:?} is less than {PATIENCE_MIN:?} or more than --health-backoff-max {:?}",
            self.health_backoff,
            self.health_backoff_max
        );
        Ok(self.health_ejection.then_some(Config {
            percent_max: self.health_ejected_percent_max,
            patience: self.health_patience,
            checks_per_second: self.health_checks_per_second,
            backoff_first: self.health_backoff,
            backoff_max: self.health_backoff_max,
        }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: HealthArgs,
    }

    fn config(line: &str) -> anyhow::Result<Option<Config>> {
        let words = ["proxy"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words)?.args.config()
    }

    #[test]
    fn it_is_on_and_can_be_turned_off() {
        assert_eq!(config("").unwrap(), Some(Config::default()));
        assert_eq!(
            config("--health-ejection").unwrap(),
            Some(Config::default())
        );
        assert_eq!(config("--health-ejection=false").unwrap(), None);
        let given = config("--health-ejected-percent-max 20 --health-patience 2s").unwrap();
        let given = given.unwrap();
        assert_eq!(
            (given.percent_max, given.patience),
            (20, Duration::from_secs(2))
        );
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (line, words) in [
            ("--health-ejected-percent-max 101", "more than all"),
            ("--health-patience 1ms", "less than"),
            ("--health-checks-per-second 4", "not in 5"),
            ("--health-backoff 20s", "more than"),
        ] {
            let error = config(line).err().map(|error| error.to_string());
            assert!(error.unwrap_or_default().contains(words), "{line}");
        }
    }
}
