//! Names of tar entries as paths.

/// Longest path, in bytes: the kernel's `PATH_MAX`. Longer ones cannot be unpacked either.
const MAX_PATH: usize = 4096;
/// Longest name, in bytes: the kernel's `NAME_MAX`.
const MAX_NAME: usize = 255;

/// The components of a name, cleaned as if it were absolute: `.` and empty ones dropped, `..` resolved
/// lexically and never above the root.
pub(super) fn components(name: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if name.len() > MAX_PATH {
        return Err("the path is too long");
    }
    let mut components = Vec::with_capacity(8);
    for component in name.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            _ if component.len() > MAX_NAME => return Err("a name is longer than 255 bytes"),
            _ if component.contains(&0) => return Err("a name contains a NUL byte"),
            _ => components.push(component),
        }
    }
    Ok(components)
}
