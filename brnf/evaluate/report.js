"use strict";
// Without JavaScript tables keep their order and pictures are links to their files.

function value(row, column) {
  return row.cells[column].textContent.trim();
}

function compare(one, other) {
  const [a, b] = [Number(one), Number(other)];
  if (!Number.isNaN(a) && !Number.isNaN(b)) return a - b;
  return one.localeCompare(other, undefined, { numeric: true });
}

function sort(table, head) {
  const first = head.classList.contains("number") ? "descending" : "ascending";
  const other = { ascending: "descending", descending: "ascending" };
  const order = other[head.getAttribute("aria-sort")] ?? first;
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const body = table.tBodies[0], column = head.cellIndex, sign = order === "ascending" ? 1 : -1;
  const rows = [...body.rows].sort((one, other) => {
    const [a, b] = [value(one, column), value(other, column)];
    if (!a || !b) return !a - !b;  // empty cells stay below
    return sign * compare(a, b);
  });
  body.append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head));
    head.append(button);
  }
}

const viewer = document.getElementById("viewer");
const enlarged = viewer.appendChild(new Image());

for (const link of document.querySelectorAll("a.enlarge")) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const picture = link.querySelector("img");
    enlarged.src = picture.src;
    enlarged.alt = picture.alt;
    enlarged.className = picture.className;
    viewer.classList.remove("zoomed");
    viewer.showModal();
  });
}
enlarged.addEventListener("click", (event) => {
  event.stopPropagation();
  const box = enlarged.getBoundingClientRect();
  const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  if (viewer.classList.toggle("zoomed")) {
    const [width, height] = [viewer.clientWidth, viewer.clientHeight];
    viewer.scrollTo(x * enlarged.offsetWidth - width / 2, y * enlarged.offsetHeight - height / 2);
  }
});
viewer.addEventListener("click", () => viewer.close());
