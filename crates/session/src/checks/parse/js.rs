//! Stack frames as JavaScript engines print them.

use super::found::Found;

/// A place in a file: path, line, column.
pub(super) type Place<'a> = (&'a str, u32, Option<u32>);

/// The first frame that lies in the repository itself, and not in a package or in the runtime.
pub(super) fn own_frame<'a>(lines: impl IntoIterator<Item = &'a str>, found: &Found<'_>) -> Option<Place<'a>> {
    lines.into_iter().filter_map(frame).find(|(file, ..)| found.is_own(file))
}

/// `at f (file:///a.js:1:2)`, `at a.js:1:2`, `❯ f a.js:1:2`; node's TAP leaves out the `at`.
pub(super) fn frame(line: &str) -> Option<Place<'_>> {
    let line = line.trim().trim_end_matches(" {");
    let place = match line.strip_suffix(')') {
        Some(line) => line.rsplit_once('(')?.1,
        None => line.rsplit(' ').next()?,
    };
    let (rest, column) = place.rsplit_once(':')?;
    let (file, line) = rest.rsplit_once(':')?;
    let (line, column) = (line.parse().ok()?, column.parse().ok()?);
    (line > 0 && !file.is_empty()).then_some((file, line, Some(column)))
}

/// Whether a line is a frame of a stack rather than words of a message.
pub(super) fn is_frame(line: &str) -> bool {
    let line = line.trim_start();
    let at = line.strip_prefix("at ").or_else(|| line.strip_prefix("❯ "));
    at.is_some_and(|rest| frame(rest).is_some() || rest.ends_with("(<anonymous>)") || rest.ends_with("(native)"))
}
