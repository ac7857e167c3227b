#[test]
fn every_visit_counts_one() {
    let mut counts = counts::open().unwrap();
    let first = counts::visit(&mut counts, "home").unwrap();
    assert_eq!(counts::visit(&mut counts, "home").unwrap(), first + 1);
}
