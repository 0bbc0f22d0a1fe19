use super::*;
use crate::testing::{DATA, Driver, MEMORY, nonsense};
use proptest::prelude::*;
use std::{sync::atomic::AtomicBool, thread};

/// A host that takes everything but one piece, and gives it back when it likes to.
#[derive(Default)]
struct Host {
    lent: Mutex<Vec<u64>>,
    keeps: AtomicBool,
    refusals: AtomicU32,
}

const REFUSED: u64 = 7 * PIECE;

impl Borrower for Arc<Host> {
    fn lend(&self, piece: Extent) -> Result<(), Error> {
        assert_eq!(piece.len, PIECE);
        if piece.gpa == REFUSED {
            let source = io::ErrorKind::InvalidInput.into();
            return Err(Error::Call { what: "lend memory", source });
        }
        self.lent.lock().unwrap().push(piece.gpa);
        Ok(())
    }

    fn recover(&self, piece: Extent) -> Result<bool, Error> {
        if self.keeps.load(Ordering::Relaxed) {
            self.refusals.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        let mut lent = self.lent.lock().unwrap();
        let at = lent.iter().position(|gpa| *gpa == piece.gpa).expect("recovered what was not lent");
        lent.remove(at);
        Ok(true)
    }
}

fn balloon() -> (Arc<Host>, Arc<Balloon>) {
    let host = Arc::<Host>::default();
    (Arc::clone(&host), Balloon::new(Box::new(host)))
}

fn fill(balloon: &Balloon, piece: u64) {
    (0..PIECE_PAGES).rev().for_each(|page| balloon.inflate(piece * PIECE_PAGES + page));
}

#[test]
fn a_boot_waits_for_what_the_host_uses_but_not_for_ever() {
    let (host, balloon) = balloon();
    let lent = || host.lent.lock().unwrap().len();
    fill(&balloon, 3);
    host.keeps.store(true, Ordering::Relaxed);
    balloon.empty(Duration::ZERO);
    assert_eq!(lent(), 1);
    fill(&balloon, 4);
    thread::scope(|scope| {
        scope.spawn(|| balloon.empty(Duration::from_secs(60)));
        while host.refusals.load(Ordering::Relaxed) < 2 {
            thread::yield_now();
        }
        host.keeps.store(false, Ordering::Relaxed);
    });
    assert_eq!(*host.lent.lock().unwrap(), [3 * PIECE]);
}

#[test]
fn whole_pieces_are_lent_and_come_back_with_the_first_page() {
    let (host, balloon) = balloon();
    let lent = || host.lent.lock().unwrap().clone();
    for page in 1..PIECE_PAGES {
        balloon.inflate(3 * PIECE_PAGES + page);
        // A guest that says so twice changes nothing.
        balloon.inflate(3 * PIECE_PAGES + page);
        assert_eq!(lent(), [0_u64; 0]);
    }
    balloon.inflate(3 * PIECE_PAGES);
    assert_eq!(lent(), [3 * PIECE]);
    balloon.deflate(3 * PIECE_PAGES + 100).unwrap();
    assert_eq!(lent(), [0_u64; 0]);
    balloon.deflate(3 * PIECE_PAGES + 101).unwrap();
    balloon.inflate(3 * PIECE_PAGES + 100);
    assert_eq!(lent(), [0_u64; 0]);
    balloon.inflate(3 * PIECE_PAGES + 101);
    assert_eq!(lent(), [3 * PIECE]);
    // A page that never was in it.
    balloon.deflate(9 * PIECE_PAGES).unwrap();
    fill(&balloon, 4);
    balloon.empty(Duration::ZERO);
    assert_eq!(lent(), [0_u64; 0]);
    assert!(balloon.lock().pieces.is_empty());
}

#[test]
fn what_the_host_does_not_take_stays_the_guests() {
    let (host, balloon) = balloon();
    fill(&balloon, REFUSED / PIECE);
    assert_eq!(*host.lent.lock().unwrap(), [0_u64; 0]);
    (0..PIECE_PAGES).for_each(|page| balloon.deflate(REFUSED / PAGE_SIZE + page).unwrap());
    assert!(balloon.lock().pieces.is_empty());
}

#[test]
fn the_guest_waits_until_the_host_gives() {
    let (host, balloon) = balloon();
    fill(&balloon, 3);
    host.keeps.store(true, Ordering::Relaxed);
    let (waiting, waits) = (Arc::clone(&balloon), AtomicBool::new(true));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            waiting.deflate(3 * PIECE_PAGES).unwrap();
            assert!(!host.keeps.load(Ordering::Relaxed));
            waits.store(false, Ordering::Relaxed);
        });
        while host.refusals.load(Ordering::Relaxed) < 2 {
            thread::yield_now();
        }
        assert!(waits.load(Ordering::Relaxed));
        host.keeps.store(false, Ordering::Relaxed);
        waiter.join().unwrap();
    });
    assert_eq!(*host.lent.lock().unwrap(), [0_u64; 0]);
}

#[test]
fn the_end_of_the_device_ends_the_wait() {
    let (host, balloon) = balloon();
    fill(&balloon, 3);
    host.keeps.store(true, Ordering::Relaxed);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| balloon.deflate(3 * PIECE_PAGES));
        while host.refusals.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        drop(Stopper(Arc::clone(&balloon)));
        assert!(waiter.join().unwrap().is_err());
    });
    balloon.empty(Duration::ZERO);
    assert_eq!(*host.lent.lock().unwrap(), [3 * PIECE], "the host has it still");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever the rings and the lists of pages hold, the device serves them or stops, and a reset makes it whole. The guest of this test is too small to lend anything.
    #[test]
    fn hostile_rings_are_survived(nonsense in nonsense(2, &[3, 4, 64, 1024, 4096])) {
        let (host, balloon) = balloon();
        let mut guest = Driver::new("balloon", Box::new(BalloonDevice::new(&balloon)));
        guest.start(MUST_TELL_HOST);
        guest.play(&nonsense, &[0, 1]);
        prop_assert!(host.lent.lock().unwrap().is_empty());
        let pages = MEMORY as u64 / PAGE_SIZE;
        let inside = |piece: &Piece| piece.pages.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
        prop_assert!(balloon.lock().pieces.iter().all(|(number, piece)| *number == 0 && inside(piece) <= pages));
        guest.start(MUST_TELL_HOST);
        guest.put(DATA, 7_u32);
        for queue in [0, 1] {
            guest.descriptor(queue, 0, DATA, 4, 0, 0);
            guest.send(queue, 0);
            guest.wait("an answer after the reset", |guest| guest.used_count(queue) == 1);
        }
        prop_assert!(balloon.lock().pieces.get(&0).is_none_or(|piece| piece.pages[0] & 1 << 7 == 0));
    }
}
