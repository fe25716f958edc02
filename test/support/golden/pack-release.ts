import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'

/**
 * Packs what runs of a built checkout: `package.json` and the ES modules of `dist`. The same checkout makes the same file,
 * byte by byte. Needs GNU tar.
 */
export function packRelease(root: string, file: string): void {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-pack-'))
  try {
    const runs = (path: string) => !/\.[^/]+$/.test(path.slice(root.length)) || path.endsWith('.mjs')
    cpSync(join(root, 'dist'), join(folder, 'package/dist'), { recursive: true, filter: runs })
    cpSync(join(root, 'package.json'), join(folder, 'package/package.json'))
    const alike = [
      '--sort=name',
      '--mtime=@0',
      '--owner=0',
      '--group=0',
      '--numeric-owner',
      '--mode=u=rwX,go=rX',
    ]
    const tar = execFileSync('tar', [...alike, '-C', folder, '-cf', '-', 'package'], { maxBuffer: 2 ** 28 })
    writeFileSync(file, gzipSync(tar, { level: 9 }))
  } finally {
    rmSync(folder, { recursive: true })
  }
}
