// Makes tables sortable, and opens the section that a link points to. The page is complete without it.
"use strict";

const collator = new Intl.Collator("en", { numeric: true });

for (const table of document.querySelectorAll("table.sortable")) {
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(table, header));
    header.append(button);
  }
}

// Sorts by the column of this header: the best number or the first letter first; reversed on the next click.
function sort(table, header) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, key: keyOf(row.cells[header.cellIndex]) }));
  const known = rows.filter(({ key }) => key !== null);
  const missing = rows.filter(({ key }) => key === null);
  const before = header.getAttribute("aria-sort");
  const numbers = known.some(({ key }) => typeof key === "number");
  const descending = before ? before === "ascending" : numbers && header.dataset.first !== "ascending";
  known.sort((a, b) => (descending ? compare(b.key, a.key) : compare(a.key, b.key)));
  body.append(...known.concat(missing).map(({ row }) => row));

  for (const cell of header.parentNode.cells) cell.removeAttribute("aria-sort");
  const direction = descending ? "descending" : "ascending";
  header.setAttribute("aria-sort", direction);
  const name = table.parentNode.getAttribute("aria-label");
  document.getElementById("announcement").textContent = `${name}: sorted by ${header.textContent.trim()}, ${direction}`;
}

// The key that a cell is sorted by: its data-value, else its text; null if it is empty.
function keyOf(cell) {
  if (cell.dataset.value !== undefined) {
    const number = parseFloat(cell.dataset.value);
    return Number.isNaN(number) ? null : number;
  }
  const text = cell.textContent.trim();
  return text === "" || text === "-" ? null : text;
}

function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b);
}

// Opens every <details> around the target of a link, so that it is visible.
function reveal(hash) {
  const target = document.getElementById(hash.slice(1));
  let closed = target?.closest("details:not([open])");
  if (!closed) return;
  for (; closed; closed = target.closest("details:not([open])")) closed.open = true;
  target.scrollIntoView();
}

// On a telephone, the verdict comes before the contents.
if (matchMedia("(max-width: 600px)").matches) document.getElementById("contents").open = false;

reveal(location.hash);
addEventListener("hashchange", () => reveal(location.hash));
// Following the same link again does not change the address.
addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link) reveal(link.hash);
});

// On paper, everything is open.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const details of opened) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
});
