/** What `reflect-metadata` adds to `Reflect`. Nest loads it. */
interface MetadataReflect {
  defineMetadata(key: string, value: unknown, target: object): void
  getMetadata(key: string, target: object): unknown
  getOwnMetadata(key: string, target: object): unknown
}

const reflect = Reflect as unknown as MetadataReflect

export function defineMetadata(key: string, value: unknown, target: object): void {
  reflect.defineMetadata(key, value, target)
}

/** What was said on this very class or method; undefined if nothing was. */
export function ownMetadata(key: string, target: object): unknown {
  return reflect.getOwnMetadata(key, target)
}

/** The same, or what a class that it extends says. */
export function inheritedMetadata(key: string, target: object): unknown {
  return reflect.getMetadata(key, target)
}
