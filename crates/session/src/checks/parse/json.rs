//! Finds a JSON document among other output, such as the banner of a package manager.

use serde::de::DeserializeOwned;

/// Lines that are tried as the start of a document, so that hostile input costs no more than as many readings.
const STARTS_MAX: usize = 16;

/// The first document of this shape that starts at the start of a line with this character.
pub(super) fn document<T: DeserializeOwned>(stream: &str, start: char) -> Option<T> {
    let mut at = 0;
    let starts = stream.split_inclusive('\n').filter_map(|line| {
        let here = at;
        at += line.len();
        line.starts_with(start).then_some(here)
    });
    starts.take(STARTS_MAX).find_map(|from| {
        let mut documents = serde_json::Deserializer::from_str(&stream[from..]).into_iter::<T>();
        documents.next()?.ok()
    })
}
