// Two pictures in a .compare box become one with a slider. Without this script both stay visible.
for (const box of document.querySelectorAll(".compare")) {
  const pictures = [...box.querySelectorAll("img")];
  const [before, after] = pictures.map((picture) => picture.title);
  const frame = document.createElement("div");
  frame.className = "compare-frame";
  const slider = document.createElement("input");
  Object.assign(slider, { type: "range", min: 0, max: 100, value: 50 });
  slider.setAttribute("aria-label", `${before} to the left, ${after} to the right`);
  const show = () => {
    frame.style.setProperty("--share", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % ${before}`);
  };
  slider.addEventListener("input", show);
  const labels = pictures.map((picture) => {
    const label = document.createElement("span");
    label.textContent = picture.title;
    picture.removeAttribute("title"); // otherwise a tooltip covers the picture
    return label;
  });
  frame.append(...pictures, ...labels, slider);
  box.replaceChildren(frame);
  show();
}
