
// A click on a frame widens it and what it calls; one on the lowest frame shows all again.
(function () {
  var frames = Array.prototype.slice.call(document.querySelectorAll("#frames > svg"));
  function of(frame) {
    var x = Number(frame.getAttribute("data-x"));
    return { from: x, to: x + Number(frame.getAttribute("data-w")) };
  }
  function widen(chosen) {
    var all = of(chosen), width = all.to - all.from;
    frames.forEach(function (frame) {
      var its = of(frame), from = Math.max(its.from, all.from), to = Math.min(its.to, all.to);
      frame.style.display = to > from ? "" : "none";
      frame.setAttribute("x", (100 * (from - all.from)) / width + "%");
      frame.setAttribute("width", (100 * Math.max(to - from, 0)) / width + "%");
    });
  }
  frames.forEach(function (frame) {
    frame.addEventListener("click", function () { widen(frame); });
  });
})();
