/* Shades the text that came out of drafts. The elements stay as they are: ranges are highlighted. */

const highlight = globalThis.Highlight && CSS.highlights ? new Highlight() : null;
const ranges = new WeakMap(); // of each element
const FAR = 2000; // characters of markup, at most, between two words

export const canShade = highlight !== null;

let isOn = false;

/* From now on shade() does something, or nothing is shaded. */
export function turnShades(on) {
  isOn = on && canShade;
  if (isOn) CSS.highlights.set("drafted", highlight);
  else globalThis.CSS?.highlights?.delete("drafted");
}

/* Marks in an element what was drafted of the text that it shows. runs: [length, whether drafted], of all the text. */
export function shade(element, text, runs) {
  if (!isOn) return;
  for (const range of ranges.get(element) ?? []) highlight.delete(range);
  const starts = positions(runs);
  const found = [];
  let at = 0; // in the text
  const nodes = document.createTreeWalker(element, NodeFilter.SHOW_TEXT, inText);
  for (let node = nodes.nextNode(); node; node = nodes.nextNode()) {
    for (const {0: word, index} of node.data.matchAll(/\S+/g)) {
      const place = text.indexOf(word, at);
      if (place >= 0 && place - at < FAR) {
        found.push(...within(starts, place, word.length, node, index));
        at = place + word.length;
      } else { // markup within the word
        for (let i = 0; i < word.length; i++) {
          const letter = text.indexOf(word[i], at);
          if (letter < 0 || letter - at >= FAR) continue;
          found.push(...within(starts, letter, 1, node, index + i));
          at = letter + 1;
        }
      }
    }
  }
  const joined = join(found);
  for (const range of joined) highlight.add(range);
  ranges.set(element, joined);
}

/* The bars of code blocks are the page's own. */
const inText = (node) => node.parentElement.closest(".bar") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT;

/* Runs as {start, end} of what was drafted. */
function positions(runs) {
  let end = 0;
  const all = runs.map(([length, drafted]) => ({start: end, end: end += length, drafted}));
  return {all: all.filter(({drafted}) => drafted), next: 0};
}

/* The pieces of a node that show drafted text; places come in order. */
function* within(starts, place, length, node, offset) {
  while (starts.next < starts.all.length && starts.all[starts.next].end <= place) starts.next++;
  for (let i = starts.next; i < starts.all.length && starts.all[i].start < place + length; i++) {
    const from = Math.max(starts.all[i].start, place), to = Math.min(starts.all[i].end, place + length);
    yield {node, start: offset + from - place, end: offset + to - place, run: i};
  }
}

/* Ranges of the pieces; those of one run in one node are one, with the spaces between them. */
function join(pieces) {
  const joined = [];
  for (const piece of pieces) {
    const last = joined.at(-1);
    if (last?.node === piece.node && last.run === piece.run) last.end = piece.end;
    else joined.push(piece);
  }
  return joined.map(({node, start, end}) =>
    new StaticRange({startContainer: node, startOffset: start, endContainer: node, endOffset: end}));
}
