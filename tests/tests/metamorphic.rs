//! The same history under other options gives the same answers.

use std::sync::Mutex;

use siltstone_tests::{Metamorphic, MetamorphicFigures, Seeds};

#[test]
fn answers_do_not_depend_on_options() {
    let total = Mutex::new(MetamorphicFigures::default());
    let start = std::time::Instant::now();
    Seeds::new("metamorphic", "answers_do_not_depend_on_options", 8).run(2, |seed| {
        let figures = Metamorphic::default().run(seed)?;
        total.lock().unwrap().add(&figures);
        Ok(())
    });
    println!("{:?} in {:?}", total.lock().unwrap(), start.elapsed());
}
