//! Sizes for people, as etcd prints them: powers of 1000, two digits below ten.

/// Prints `0 B`, `20 kB`, `2.1 GB`.
#[must_use]
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if size < 1000 {
        return format!("{size} B");
    }
    // Tenths are rounded to nearest at the unit that leaves less than 1000 of it. A value that
    // rounds up to 1000 keeps its unit, as etcd has it.
    let mut unit = 1000_u128;
    let mut name = 0;
    while name + 1 < UNITS.len() && u128::from(size) >= unit * 1000 {
        unit *= 1000;
        name += 1;
    }
    let tenths = (u128::from(size) * 10 + unit / 2) / unit;
    if tenths < 100 {
        return format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[name]);
    }
    // Rounded twice on purpose, first to tenths, then to the whole, where halves go to even.
    let (whole, rest) = (tenths / 10, tenths % 10);
    let up = rest > 5 || (rest == 5 && whole % 2 == 1);
    format!("{} {}", whole + u128::from(up), UNITS[name])
}

#[cfg(test)]
mod tests {
    use super::bytes;

    /// CTL3-66.
    #[test]
    fn units_are_decimal() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(20_480), "20 kB");
        assert_eq!(bytes(2_147_483_648), "2.1 GB");
        assert_eq!(bytes(1_000), "1.0 kB");
        assert_eq!(bytes(16_384), "16 kB");
    }
}
