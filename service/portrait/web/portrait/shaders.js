/** The compositor's shaders. `place` is (0, 0) at a picture's upper left corner, as textures of pictures are. */

export const VERTEX = `#version 300 es
out vec2 place;
void main() {
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
  place = corner;
  gl_Position = vec4(2.0 * corner - 1.0, 0.0, 1.0);
}`;

/** The mean of the room's pixels within a box, of all pixels where the room is far or with `even`, as in modes.py. */
export const ROOM = `#version 300 es
precision highp float;
uniform sampler2D frame, mask;
uniform vec2 size;
uniform bool even;
in vec2 place;
out vec4 shown;
void main() {
  vec3 sum = vec3(0.0);
  float weights = 0.0;
  for (int y = -4; y <= 4; y++) {
    for (int x = -4; x <= 4; x++) {
      // Beyond an edge the picture is mirrored.
      vec2 at = place + vec2(x, y) / size;
      at = 1.0 - abs(1.0 - abs(at));
      float weight = even ? 1.0 : 1.0 - texture(mask, at).g + 0.01;
      sum += weight * texture(frame, at).rgb;
      weights += weight;
    }
  }
  shown = vec4(sum / weights, 1.0);
}`;

/** The mean of each cell of the frame, of 16 by 16 places in it. */
export const CELLS = `#version 300 es
precision highp float;
uniform sampler2D frame;
uniform vec2 size;
in vec2 place;
out vec4 shown;
void main() {
  vec3 sum = vec3(0.0);
  vec2 corner = floor(place * size);
  for (int y = 0; y < 16; y++) {
    for (int x = 0; x < 16; x++) {
      sum += texture(frame, (corner + (vec2(x, y) + 0.5) / 16.0) / size).rgb;
    }
  }
  shown = vec4(sum / 256.0, 1.0);
}`;

/**
 * The person over the background, or what hides the person over the frame. The cases are those of MODES in compositor.js; edges can have the person's own colours
 * and the new room's light, as in compositors/fringe.py.
 */
export const FILL = `#version 300 es
precision highp float;
uniform sampler2D frame, mask, background;
uniform int mode;
uniform bool decontaminate;
uniform vec3 color;
uniform vec2 cover;
in vec2 place;
out vec4 shown;
void main() {
  vec2 at = vec2(place.x, 1.0 - place.y); // the canvas begins below
  vec2 probability = texture(mask, at).rg;
  float share = probability.g;
  vec3 person = texture(frame, at).rgb;
  vec3 behind = color;
  if (mode == 0) behind = texture(background, at).rgb;
  if (mode == 2) behind = texture(background, (at - 0.5) * cover + 0.5).rgb;
  shown = vec4(mix(behind, person, share), 1.0);
  if (mode == 3) shown = vec4(person * share, share);
  if (decontaminate && mode >= 1 && mode <= 3 && share > 0.0 && share < 1.0) {
    vec3 own = vec3(0.0), light = vec3(0.0);
    float weights = 0.001;
    for (int y = -2; y <= 2; y++) {
      for (int x = -2; x <= 2; x++) {
        vec2 near = clamp(at + vec2(x, y) / 64.0, 0.0, 1.0);
        float weight = pow(texture(mask, near).g, 2.0);
        own += weight * texture(frame, near).rgb;
        weights += weight;
        light += mode == 1 ? color : texture(background, (near - 0.5) * cover + 0.5).rgb;
      }
    }
    own /= weights;
    light /= 25.0;
    vec3 between = share * (1.0 - share) * mix(own, light, 0.3);
    shown = vec4(share * share * person + (1.0 - share) * behind + between, 1.0);
    if (mode == 3) shown = vec4(mix(own, person, share) * share, share);
  }
  if (mode == 4) shown = vec4(vec3(probability.r), 1.0);
  if (mode >= 6) {
    vec3 cover = color;
    if (mode == 7) cover = texelFetch(background, ivec2(at * vec2(textureSize(background, 0))), 0).rgb;
    if (mode == 8) cover = texture(background, at).rgb;
    shown = vec4(mix(person, cover, share), 1.0);
  }
  if (mode == 5) shown = vec4(vec3(share), 1.0);
}`;
