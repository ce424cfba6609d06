/* Lets screen readers speak an answer while it comes: each sentence once, in a region that nobody sees. */

const region = document.getElementById("speech");
let spoken = 0; // characters

export function startSpeech() {
  region.replaceChildren();
  spoken = 0;
}

/* Speaks the sentences and lines that are whole, or all of the text at its end. */
export function speak(text, isEnd) {
  const whole = isEnd ? text.length : lastEnd(text);
  const words = text.slice(spoken, whole).replace(/[*`#|]+/g, "").trim();
  spoken = Math.max(spoken, whole);
  if (!words) return;
  const sentence = document.createElement("p");
  sentence.textContent = words;
  region.append(sentence);
}

/* What was handed over is spoken though it goes; whoever reads the page must not meet it twice. */
export const endSpeech = () => setTimeout(() => region.replaceChildren(), 1000);

function lastEnd(text) {
  const ends = text.slice(spoken).matchAll(/[.!?:]\s|\n/g);
  return [...ends].reduce((_, {0: end, index}) => spoken + index + end.length, spoken);
}
