// Texts whose colour is too near to what is behind them: [text, ratio].
(() => {
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    if (element.ownerSVGElement) return getComputedStyle(element.parentElement.querySelector("rect") || element.ownerSVGElement.closest("section")).fill;
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((numbers(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const pale = [];
  for (const element of document.querySelectorAll("main *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!own || ["TITLE", "DESC", "title", "desc"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const two = [light(element.ownerSVGElement ? style.fill : style.color), light(behind(element))].sort((a, b) => b - a);
    const ratio = (two[0] + 0.05) / (two[1] + 0.05);
    if (ratio < 4.5) pale.push([element.textContent.slice(0, 30), ratio.toFixed(2)]);
  }
  return pale;
})()
