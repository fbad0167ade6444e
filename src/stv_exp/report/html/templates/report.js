"use strict";

const order = new Intl.Collator(undefined, { numeric: true });

/** Numbers by size, names by their letters and the numbers in them, the other way round if it `falls`; what is no number last. */
function compare(a, b, falls) {
  const [x, y] = [a, b].map((text) => parseFloat(text.replace(/^[[<+ ]+/, "").replace(/,/g, "")));
  const [named, other] = [Number.isNaN(x), Number.isNaN(y)];
  if (named !== other) return named - other;
  const sign = falls ? -1 : 1;
  return sign * (!named && x !== y ? x - y : order.compare(a, b));
}

function sort(header) {
  const state = header.getAttribute("aria-sort");
  const falls = !(state === "descending" || (state === "none" && header.cellIndex === 0));
  const body = header.closest("table").tBodies[0];
  const text = (row) => row.cells[header.cellIndex].textContent.trim();
  const rows = [...body.rows].sort((a, b) => compare(text(a), text(b), falls));
  for (const other of header.parentNode.cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", falls ? "descending" : "ascending");
  body.append(...rows);
}

for (const button of document.querySelectorAll(".sortable thead button")) {
  button.addEventListener("click", () => sort(button.parentNode));
}

const filter = document.querySelector(".filter");
const more = document.querySelector(".more");
const page = 12;
let shown = page;

function show() {
  const { verdict, label, task } = filter.elements;
  let cards = 0;
  for (const card of document.querySelectorAll(".card")) {
    let answers = 0;
    for (const answer of card.querySelectorAll("li")) {
      const chosen = (!verdict.value || answer.classList.contains(verdict.value)) && (!label.value || answer.dataset.label === label.value);
      answer.hidden = !chosen;
      answers += chosen;
    }
    const chosen = answers > 0 && (!task.value || card.dataset.task === task.value);
    cards += chosen;
    card.hidden = !chosen || cards > shown;
  }
  more.hidden = cards <= shown;
  filter.querySelector("output").textContent = cards === 1 ? "1 query" : `${cards} queries`;
}

filter.hidden = false;
filter.addEventListener("submit", (event) => event.preventDefault());
filter.addEventListener("input", () => {
  shown = page;
  show();
});
more.addEventListener("click", () => {
  shown += page;
  show();
});
show();
