//! Inputs from a seed: known ones, changed at random, and bytes at random.

const MOST_CHANGES: u64 = 8;
const MOST_BYTES: usize = 4096;

/// See the module.
pub struct Inputs {
    state: u64,
    known: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

impl Inputs {
    pub fn new(seed: u64, known: Vec<Vec<u8>>, words: &[&str]) -> Self {
        Self {
            state: seed | 1,
            known,
            words: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        }
    }

    /// xorshift64*
    fn random(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random() % bound.max(1) as u64) as usize
    }

    pub fn next(&mut self) -> Vec<u8> {
        let mut input = match self.below(8) {
            0 => self.bytes(),
            _ if self.known.is_empty() => self.bytes(),
            _ => {
                let place = self.below(self.known.len());
                self.known[place].clone()
            }
        };
        for _ in 0..=self.random() % MOST_CHANGES {
            self.change(&mut input);
        }
        input.truncate(MOST_BYTES);
        input
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.below(64);
        (0..len).map(|_| self.random() as u8).collect()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let to = at + self.below(input.len() - at + 1);
        match self.below(8) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << (self.random() % 8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.random() as u8;
                }
            }
            2 => drop(input.drain(at..to)),
            3 => {
                let copy = input[at..to].to_vec();
                let place = self.below(input.len() + 1);
                input.splice(place..place, copy);
            }
            4 | 5 if !self.words.is_empty() => {
                let word = self.below(self.words.len());
                input.splice(at..at, self.words[word].clone());
            }
            6 if !self.known.is_empty() => {
                let other = self.below(self.known.len());
                let from = self.below(self.known[other].len() + 1);
                let tail = self.known[other][from..].to_vec();
                input.splice(at.., tail);
            }
            _ => {
                // Lengths and counts.
                let number =
                    [0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0x8000_0000, u32::MAX][self.below(8)];
                let len = 4.min(input.len() - at);
                input[at..at + len].copy_from_slice(&number.to_ne_bytes()[..len]);
            }
        }
    }
}
