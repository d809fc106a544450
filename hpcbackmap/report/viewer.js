// Structures of one system in a canvas. Every bond and every piece of backbone is a capsule: one
// instanced rectangle whose fragment shader meets the line of sight with the capsule. Lengths are nm,
// the projection is orthographic. Data: see viewer.py.
"use strict";
(() => {
  const VERTEX = `#version 300 es
    in vec2 corner; in vec3 start; in vec3 end; in vec4 look;
    uniform mat3 turn; uniform vec3 centre; uniform vec2 scale;
    flat out vec3 a; flat out vec3 b; flat out vec4 paint; out vec2 at;
    void main() {
      a = turn * (start - centre); b = turn * (end - centre); paint = look;
      vec2 along = b.xy - a.xy; float size = length(along);
      along = size > 1e-6 ? along / size : vec2(1, 0);
      at = (a.xy + b.xy) / 2. + along * corner.x * (size / 2. + look.w)
         + vec2(-along.y, along.x) * corner.y * look.w;
      gl_Position = vec4(at * scale, 0, 1);
    }`;
  const FRAGMENT = `#version 300 es
    precision highp float;
    flat in vec3 a; flat in vec3 b; flat in vec4 paint; in vec2 at;
    uniform float depth; out vec4 colour;
    void main() {
      float r = paint.w, far = max(a.z, b.z) + 2. * r;
      vec3 eye = vec3(at, far), axis = b - a, o = eye - a;
      float d = dot(axis, axis), ad = -axis.z, ao = dot(axis, o), od = -o.z;
      float p = d - ad * ad, q = d * od - ao * ad, s = d * dot(o, o) - ao * ao - r * r * d;
      float h = q * q - p * s, t = 0., y = a.z > b.z ? -1. : d + 1.;
      if (p > 1e-7) {
        if (h < 0.) discard;
        t = (-q - sqrt(h)) / p;
        y = ao + t * ad;
      }
      if (y <= 0. || y >= d) { // past an end: the ball there
        vec3 c = eye - (y <= 0. ? a : b);
        h = c.z * c.z - dot(c, c) + r * r;
        if (h < 0.) discard;
        t = c.z - sqrt(h);
      }
      vec3 hit = vec3(at, far - t);
      vec3 n = (hit - a - axis * clamp(dot(hit - a, axis) / max(d, 1e-9), 0., 1.)) / r;
      float light = max(dot(n, normalize(vec3(-.45, .65, .75))), 0.);
      vec3 lit = paint.rgb * (.42 + .68 * light) + .22 * pow(light, 24.);
      lit *= mix(.35, 1., smoothstep(.12, .5, n.z));
      colour = vec4(mix(lit, vec3(1), .55 * smoothstep(-.1, 1., -hit.z / depth)), 1);
      gl_FragDepth = clamp(.5 - .5 * hit.z / depth, 0., 1.);
    }`;
  const CROWDED = 120; // residues; a larger system opens without side chains
  const PIECES = 6; // of backbone tube per residue
  const SLOW = 50; // ms for one picture
  const STEP = 0.12; // radians per key
  const GREY = 1; // Angstrom of expected error in the middle of the colours
  const [SURE, MIDDLE, UNSURE] = [[0, 0.45, 0.7], [0.8, 0.8, 0.8], [0.84, 0.37, 0]];

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16) / 255);
  const make = (tag, fields = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), fields);
    node.append(...children);
    return node;
  };
  const times = (m, n) => { // columns first, as WebGL has them
    const out = new Array(9).fill(0);
    for (let c = 0; c < 3; c++)
      for (let r = 0; r < 3; r++)
        for (let k = 0; k < 3; k++) out[3 * c + r] += m[3 * k + r] * n[3 * c + k];
    return out;
  };
  const turned = (x, y) => {
    const [a, b, c, d] = [Math.cos(x), Math.sin(x), Math.cos(y), Math.sin(y)];
    return times([1, 0, 0, 0, a, b, 0, -b, a], [c, 0, -d, 0, 1, 0, d, 0, c]);
  };

  class Painter {
    constructor(canvas) {
      const gl = canvas.getContext("webgl2", { preserveDrawingBuffer: true });
      if (!gl) throw new Error("no WebGL 2");
      this.canvas = canvas;
      this.gl = gl;
      const program = gl.createProgram();
      for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
        const shader = gl.createShader(kind);
        gl.shaderSource(shader, source);
        gl.compileShader(shader);
        gl.attachShader(program, shader);
      }
      gl.linkProgram(program);
      if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
      gl.useProgram(program);
      const place = (name, size, stride, offset, divisor) => {
        const k = gl.getAttribLocation(program, name);
        gl.enableVertexAttribArray(k);
        gl.vertexAttribPointer(k, size, gl.FLOAT, false, 4 * stride, 4 * offset);
        gl.vertexAttribDivisor(k, divisor);
      };
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
      place("corner", 2, 2, 0, 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      place("start", 3, 10, 0, 1);
      place("end", 3, 10, 3, 1);
      place("look", 4, 10, 6, 1);
      this.uniform = Object.fromEntries(
        ["turn", "centre", "scale", "depth"].map((name) => [name, gl.getUniformLocation(program, name)]));
      gl.enable(gl.DEPTH_TEST);
      gl.clearColor(1, 1, 1, 1);
    }

    load(capsules) {
      this.count = capsules.length / 10;
      this.gl.bufferData(this.gl.ARRAY_BUFFER, new Float32Array(capsules), this.gl.DYNAMIC_DRAW);
    }

    paint(turn, centre, reach, zoom) {
      const { gl, canvas, uniform } = this;
      const ratio = this.slow ? 1 : Math.max(window.devicePixelRatio || 1, 2);
      canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
      canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
      const { width, height } = canvas;
      const scale = zoom * Math.min(width / reach[0], height / reach[1]);
      gl.viewport(0, 0, width, height);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.uniformMatrix3fv(uniform.turn, false, turn);
      gl.uniform3fv(uniform.centre, centre);
      gl.uniform2f(uniform.scale, scale / width, scale / height);
      gl.uniform1f(uniform.depth, reach[2]);
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.count);
    }

    measure(draw) { // without a graphics card, fewer pixels keep turning smooth
      const finish = () => this.gl.readPixels(0, 0, 1, 1, this.gl.RGBA, this.gl.UNSIGNED_BYTE, new Uint8Array(4));
      draw(); // compiles
      finish();
      const begun = performance.now();
      draw();
      finish();
      this.slow = performance.now() - begun > SLOW;
    }
  }

  class Viewer {
    constructor(host, data) {
      this.data = data;
      this.bonds = new Uint32Array(bytes(data.bonds));
      this.trace = new Uint32Array(bytes(data.trace));
      this.residue = new Uint32Array(bytes(data.residue));
      this.isTrace = new Set(this.trace);
      this.shown = data.structures.map((s) => s.shown);
      this.frame = data.first;
      this.style = this.trace.length > CROWDED ? "tube" : "sides";
      this.canvas = make("canvas", { tabIndex: 0 });
      this.canvas.setAttribute("role", "img");
      this.canvas.setAttribute("aria-label",
        `3-D view of ${data.system}. Arrow keys turn, plus and minus zoom, 0 resets.`);
      this.build(host);
      this.painter = new Painter(this.canvas);
      this.listen();
      this.reset();
      this.load();
      this.painter.measure(() => this.draw());
      host.classList.add("ready");
    }

    build(host) {
      const { data } = this;
      this.slider = make("input", { type: "range", min: 0, max: data.frames.length - 1, value: this.frame });
      this.frameText = make("output");
      const choice = make("select", { onchange: () => { this.style = choice.value; this.load(); } },
        ...[["sides", "backbone and side chains"], ["tube", "backbone"], ["atoms", "all heavy atoms"]]
          .map(([value, text]) => make("option", { value, textContent: text, selected: value === this.style })));
      this.byError = false;
      const colouring = make("select", { onchange: () => { this.byError = colouring.value === "error"; this.load(); } },
        ...[["structure", "structure"], ["error", "expected error"]]
          .map(([value, textContent]) => make("option", { value, textContent })));
      const scale = make("small", { textContent: `blue 0, grey ${GREY} Å, orange ${2 * GREY} Å and more` });
      this.notes = [];
      const toggles = data.structures.map((s, k) => {
        const box = make("input", { type: "checkbox", checked: s.shown,
          onchange: () => { this.shown[k] = box.checked; this.load(); } });
        const swatch = make("i");
        swatch.style.background = s.colour;
        this.notes.push(make("small"));
        return make("label", {}, box, swatch, s.label, " ", this.notes[k]);
      });
      const button = (text, title, act) =>
        make("button", { type: "button", textContent: text, title, ariaLabel: title, onclick: act });
      this.slider.oninput = () => { this.frame = +this.slider.value; this.load(); };
      host.append(this.canvas,
        make("div", { className: "controls" },
          make("label", { className: "frames" }, "Frame ", this.slider, this.frameText),
          make("label", {}, "Show ", choice),
          ...(data.frames[0].errors ? [make("label", {}, "Members coloured by ", colouring, " ", scale)] : []),
          make("span", {}, button("−", "zoom out", () => this.zoomBy(1 / 1.25)),
            button("+", "zoom in", () => this.zoomBy(1.25)),
            button("Reset", "reset the view", () => this.reset()))),
        make("div", { className: "controls legend" }, ...toggles));
    }

    listen() {
      const { canvas } = this, fingers = new Map();
      canvas.onpointerdown = (e) => { canvas.setPointerCapture(e.pointerId); fingers.set(e.pointerId, e); };
      canvas.onpointerup = canvas.onpointercancel = (e) => fingers.delete(e.pointerId);
      canvas.onpointermove = (e) => {
        const before = fingers.get(e.pointerId);
        if (!before) return;
        const dx = e.clientX - before.clientX, dy = e.clientY - before.clientY;
        if (fingers.size === 1 && !e.shiftKey) this.turnBy(dy / 150, dx / 150);
        else {
          const other = [...fingers.values()].find((f) => f.pointerId !== e.pointerId);
          const gap = (f) => Math.hypot(f.clientX - other.clientX, f.clientY - other.clientY);
          if (other) this.zoomBy(gap(e) / Math.max(gap(before), 1));
          this.moveBy(dx / (other ? 2 : 1), dy / (other ? 2 : 1));
        }
        fingers.set(e.pointerId, e);
      };
      canvas.addEventListener("wheel", (e) => {
        if (document.activeElement !== canvas && !e.ctrlKey) return;
        e.preventDefault();
        this.zoomBy(Math.exp(-e.deltaY / 500));
      }, { passive: false });
      const keys = {
        ArrowLeft: () => this.turnBy(0, -STEP), ArrowRight: () => this.turnBy(0, STEP),
        ArrowUp: () => this.turnBy(-STEP, 0), ArrowDown: () => this.turnBy(STEP, 0),
        "+": () => this.zoomBy(1.25), "=": () => this.zoomBy(1.25), "-": () => this.zoomBy(1 / 1.25),
        0: () => this.reset(),
      };
      canvas.onkeydown = (e) => {
        if (!keys[e.key] || e.ctrlKey || e.metaKey) return;
        e.preventDefault();
        keys[e.key]();
      };
      canvas.addEventListener("webglcontextlost", (e) => e.preventDefault());
      canvas.addEventListener("webglcontextrestored", () => { this.painter = new Painter(canvas); this.load(); });
      new ResizeObserver(() => this.redraw()).observe(canvas);
    }

    reset() { [this.turn, this.centre, this.zoom] = [turned(0, 0), [0, 0, 0], 1]; this.redraw(); }
    turnBy(x, y) { this.turn = times(turned(x, y), this.turn); this.redraw(); }
    zoomBy(factor) { this.zoom = Math.min(20, Math.max(0.3, this.zoom * factor)); this.redraw(); }
    moveBy(dx, dy) {
      const { canvas, turn, zoom, data } = this;
      const nm = 2 / zoom / Math.min(canvas.clientWidth / data.reach[0], canvas.clientHeight / data.reach[1]);
      this.centre = this.centre.map((c, k) => c - nm * (turn[3 * k] * dx - turn[3 * k + 1] * dy));
      this.redraw();
    }
    redraw() {
      if (this.waiting) return;
      this.waiting = requestAnimationFrame(() => {
        this.waiting = 0;
        this.draw();
      });
    }
    draw() { this.painter.paint(this.turn, this.centre, this.data.reach, this.zoom); }

    load() {
      const { data, frame } = this, now = data.frames[frame], capsules = [];
      const whole = new Int16Array(bytes(now.xyz)), size = 3 * data.atoms;
      this.frameText.textContent = `${now.label} (${frame + 1} of ${data.frames.length})`;
      data.structures.forEach((s, k) => {
        this.notes[k].textContent = now.notes[k];
        if (!this.shown[k]) return;
        const xyz = Float32Array.from(whole.subarray(k * size, (k + 1) * size), (v) => v * data.scale);
        this.add(capsules, (i) => xyz.subarray(3 * i, 3 * i + 3), this.colours(k, rgb(s.colour), now), k ? 0.8 : 1);
      });
      this.painter.load(capsules);
      this.redraw();
    }

    colours(k, own, now) { // of each residue of structure k; the truth and the nearest frame have no errors
      const residues = this.trace.length, errors = this.byError && now.errors && new Uint8Array(bytes(now.errors));
      if (!errors || k === 0 || k * residues > errors.length) return () => own;
      return (r) => {
        const t = Math.min(2, errors[(k - 1) * residues + r] * this.data.errorStep / GREY);
        const [low, high] = t < 1 ? [SURE, MIDDLE] : [MIDDLE, UNSURE];
        return low.map((c, x) => c + (t - Math.floor(Math.min(t, 1))) * (high[x] - c));
      };
    }

    add(capsules, point, colour, thickness) {
      const { bonds, trace, isTrace, style, data } = this;
      const tube = style !== "atoms", thin = 0.02 * thickness, thick = 0.055 * thickness;
      for (let k = 0; k < bonds.length && style !== "tube"; k += 2) {
        const [i, j] = [bonds[k], bonds[k + 1]];
        if (tube && !this.inSideChain(i, j)) continue;
        capsules.push(...point(i), ...point(j), ...colour(this.residue[i]), thin);
      }
      for (let r = 1; r < trace.length && tube; r++) {
        if (!data.bonded[r]) continue;
        const [b, c] = [point(trace[r - 1]), point(trace[r])];
        const a = data.bonded[r - 1] ? point(trace[r - 2]) : b;
        const d = data.bonded[r + 1] ? point(trace[r + 1]) : c;
        let last = b;
        for (let piece = 1; piece <= PIECES; piece++) {
          const t = piece / PIECES; // Catmull and Rom's spline through the C-alpha atoms
          const next = [0, 1, 2].map((x) => b[x] + t / 2 * (c[x] - a[x]
            + t * (2 * a[x] - 5 * b[x] + 4 * c[x] - d[x] + t * (3 * (b[x] - c[x]) + d[x] - a[x]))));
          capsules.push(...last, ...next, ...colour(2 * piece > PIECES ? r : r - 1), thick);
          last = next;
        }
      }
    }

    inSideChain(i, j) {
      const side = (atom) => this.data.side[atom] === "1";
      return (side(i) && (side(j) || this.isTrace.has(j))) || (side(j) && this.isTrace.has(i));
    }
  }

  // A folded table is part of the printed page.
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((fold) => { fold.open = true; }));

  for (const host of document.querySelectorAll(".viewer")) {
    try {
      new Viewer(host, JSON.parse(host.querySelector("script").textContent));
    } catch (error) {
      host.replaceChildren(make("p", { className: "problem",
        textContent: `The 3-D view does not work in this browser (${error.message}); the pictures show the same.` }));
    }
  }
})();
