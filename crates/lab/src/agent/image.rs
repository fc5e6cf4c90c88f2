//! What stands in for images. A container's command runs from the machine's own file system and its image is ignored,
//! except that an image of this table says what a container without a command runs. Pure.

/// Image name (the last part of the reference, without tag) → the command that stands for its entry point.
const ENTRY_POINTS: &[(&str, &[&str])] = &[
    ("echo", &["portolan", "echo"]),
    ("pause", &["sleep", "infinity"]),
    ("busybox", &["sh"]),
];

/// The command line of a container: `command` and `args` over the image's entry point, as with a real image.
pub fn command_line(
    image: &str,
    command: &[String],
    args: &[String],
) -> Result<Vec<String>, String> {
    if !command.is_empty() {
        return Ok([command, args].concat());
    }
    let entry = entry_point(image).ok_or_else(|| {
        format!("the lab runs commands, not images: {image:?} has no command here, give the container one")
    })?;
    Ok(entry
        .iter()
        .map(|word| word.to_string())
        .chain(args.iter().cloned())
        .collect())
}

fn entry_point(image: &str) -> Option<&'static [&'static str]> {
    let name = image
        .split('@')
        .next()?
        .rsplit('/')
        .next()?
        .split(':')
        .next()?;
    ENTRY_POINTS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, entry)| *entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_wins_over_the_image() {
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            command_line("x", &words("sh -c"), &words("true")),
            Ok(words("sh -c true"))
        );
        let echo = command_line(
            "registry.example:5000/portolan/echo:v1@sha256:0",
            &[],
            &words("--tcp 1"),
        );
        assert_eq!(echo, Ok(words("portolan echo --tcp 1")));
        assert!(
            command_line("nginx", &[], &[])
                .unwrap_err()
                .contains("\"nginx\" has no command here")
        );
    }
}
