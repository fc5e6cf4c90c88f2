//! Resource quantities: `100m`, `64Mi`, `2`, `1e3`.

use serde_json::Value;

/// The number that a resource quantity stands for.
pub fn amount(quantity: &Value) -> Option<f64> {
    let Some(given) = quantity.as_str() else {
        return quantity.as_f64();
    };
    let digits = given
        .find(|letter: char| !matches!(letter, '0'..='9' | '.' | '+' | '-'))
        .unwrap_or(given.len());
    let number: f64 = given[..digits].parse().ok()?;
    let factor = match &given[digits..] {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0_f64.powi(2),
        "Gi" => 1024.0_f64.powi(3),
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        "Ei" => 1024.0_f64.powi(6),
        exponent => 10.0_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities() {
        assert_eq!(amount(&json!("250m")), Some(0.25));
        assert_eq!(amount(&json!("2Ki")), Some(2048.0));
        assert_eq!(amount(&json!("1e3")), Some(1000.0));
        assert_eq!(amount(&json!("1E")), Some(1e18));
        assert_eq!(amount(&json!(2)), Some(2.0));
        assert_eq!(amount(&json!("two")), None);
        assert_eq!(amount(&Value::Null), None);
    }
}
