//! Releases of the kernel, as `uname -r` prints them.

/// Series of a release: major and minor. `None` if the text does not begin with two numbers.
#[must_use]
pub fn series_of(release: &str) -> Option<(u16, u16)> {
    let mut numbers = release.split('.');
    let (major, minor) = (numbers.next()?, numbers.next()?);
    let minor = minor.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_its_series() {
        assert_eq!(series_of("7.3.4+deb13-arm64"), Some((7, 3)));
        assert_eq!(series_of("7.10-rc1"), Some((7, 10)));
        assert_eq!(series_of("7"), None);
        assert_eq!(series_of("vmlinuz.7"), None);
    }
}
