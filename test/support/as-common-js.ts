/** The same as a CommonJS program. */
export function asCommonJs(code: string): string {
  const required = code.replace(
    /^import (.+) from ('[^']+')$/gm,
    (_line, names: string, from: string) =>
      `const ${names.startsWith('{') ? names.replaceAll(' as ', ': ') : names} = require(${from})`,
  )
  return `(async () => {\n${required}\n})()`
}
